"""Room for experts that are put together."""

import numpy as np
import torch

from workbench.core.spec import Spec
from workbench.offload.config import OffloadConfig
from workbench.offload.formats import FORMATS
from workbench.offload.precision.decoder import Decoder
from workbench.offload.precision.plan import Precision
from workbench.offload.store.blocks import parts_of
from workbench.offload.store.encoding import Encoding


def test_experts_are_put_together_from_scattered_slots():
    spec = Spec("int4", {"levels": 2})
    form, experts = (
        spec.build(FORMATS),
        [[torch.randn(6, 8).bfloat16(), torch.randn(8, 3).bfloat16()] for _ in range(3)],
    )
    encoded = [form.encode(tensors) for tensors in experts]
    pages = [page for one in encoded for page in one.pages]
    # slots in an order of their own: page 5 in slot 0, 4 in slot 1, ...
    slots = [torch.stack(parts) for parts in zip(*reversed(pages), strict=True)]
    encoding = Encoding(format=spec, levels=2, dense=parts_of(experts[0]), left=np.array([one.left for one in encoded]))
    precision = Precision(encoding, OffloadConfig(), num_layers=1, num_experts=3)
    decoder = Decoder(precision, 2, torch.device("cpu"))
    decoder.put([[1, 0], [5]], slots)
    assert decoder.num_bytes == 2 * 2 * (48 + 24)
    for place, (expert, levels) in enumerate([(2, 2), (0, 1)]):
        expected = [torch.empty_like(one) for one in experts[expert]]
        form.decode(encoded[expert].pages[:levels], expected)
        assert all(torch.equal(tensor[place], one) for tensor, one in zip(decoder.tensors, expected, strict=True))

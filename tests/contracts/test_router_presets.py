"""Every router works with its default arguments at the sizes of every preset, and at odd ones."""

import pytest
import torch

from workbench.core import Router
from workbench.model.config import PRESETS, preset

SIZES = {name: (preset(name).width, preset(name).num_experts) for name in PRESETS}
# experts that are no power of two and do not divide the width.
SIZES["odd"] = (48, 7)


@pytest.mark.parametrize("size", SIZES)
def test_its_defaults_train_at_the_sizes_of_every_preset(router: type[Router], size, stage):
    width, experts = SIZES[size]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = router(width, experts)
    tokens = stage.tokens_of(100, 28)
    x = torch.randn(128, width, generator=torch.Generator().manual_seed(1), requires_grad=True)
    for phase in ("train", "prefill", "decode"):
        routing = made(x, stage.context_of(made, tokens, phase))
        flat = routing.assignments()
        assert routing.num_tokens == 128
        assert int(routing.counts.sum()) > 0
        assert flat.weight.isfinite().all()
        assert int(flat.expert.max()) < routing.num_experts

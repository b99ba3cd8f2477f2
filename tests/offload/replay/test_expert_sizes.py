"""Bytes of an expert: by the cards' numbers, and those of pages that are really made."""

import json

import pytest
import torch

from workbench.core import Spec
from workbench.offload.formats import FORMATS
from workbench.offload.replay.expert_sizes import bytes_in_format, expert_shape, sizes_of
from workbench.offload.store.blocks import BlockShape, Part, parts_of
from workbench.trace.synth import synthetic_trace

# arXiv 2505.09388 (Qwen3-30B-A3B): 9.44 MB.
WIDE = BlockShape((Part((1536, 2048), "bfloat16"), Part((2048, 768), "bfloat16")))


def about(**model):
    trace = synthetic_trace(num_tokens=4, num_layers=1, num_experts=4, top_k=2)
    trace.attrs["model"] = json.dumps(model)
    return trace


def test_bits_of_a_weight_are_those_that_the_formats_say():
    weights = WIDE.num_bytes // 2
    assert bytes_in_format(WIDE, Spec("exact")) == 9_437_184
    assert bytes_in_format(WIDE, Spec("int8")) == weights * 8.25 / 8
    assert bytes_in_format(WIDE, Spec("int4")) == weights * 4.5 / 8
    assert bytes_in_format(WIDE, Spec("int4", {"levels": 2}), mean_levels=1.5) == 1.5 * weights * 4.5 / 8
    # arXiv 2410.23918: mn/8 + 2k(m+n) bytes of a block.
    square = BlockShape((Part((4096, 4096), "float16"),))
    assert bytes_in_format(square, Spec("residual", {"levels": 1, "rank": 16})) == 2_359_296


@pytest.mark.parametrize("name", FORMATS.names())
@pytest.mark.parametrize("shape", [(10, 7), (64, 33)])
def test_sizes_are_those_of_real_pages(name, shape):
    tensors = [torch.randn(shape), torch.randn(shape[::-1])]
    made = FORMATS.get(name)()
    whole = sum(parts_of(page).num_bytes for page in made.encode(tensors).pages)
    assert bytes_in_format(parts_of(tensors), Spec(name)) == whole


def test_a_trace_says_the_shape_of_its_experts():
    assert expert_shape(about(width=32, expert_width=64)) == BlockShape(
        (Part((128, 32), "float32"), Part((32, 64), "float32"))
    )
    host = about(hidden_size=2048, moe_intermediate_size=768, intermediate_size=6144, dtype="bfloat16")
    assert expert_shape(host) == WIDE
    assert sizes_of("exact, int4:levels=2,group=64, 9.4MB", host) == {
        "exact": 9_437_184,
        "int4:levels=2,group=64": 9_437_184 // 16 * 17 // 2,
        "9.4MB": 9_400_000,
    }


def test_where_sizes_cannot_be_known_they_must_be_given():
    trace = synthetic_trace(num_tokens=4, num_layers=1, num_experts=4, top_k=2)
    with pytest.raises(LookupError, match=r"give their size instead of a format, as 9\.4MB"):
        sizes_of("int8", trace)
    assert sizes_of("9.4MB", trace) == {"9.4MB": 9_400_000}
    with pytest.raises(ValueError, match="given once, got 'exact' twice"):
        sizes_of("exact,exact", about(width=32, expert_width=64))
    with pytest.raises(LookupError, match="has no 'int5'"):
        sizes_of("int5", about(width=32, expert_width=64))
    with pytest.raises(ValueError, match="mean_levels must be between 1 and 1, got 2"):
        bytes_in_format(WIDE, Spec("int8"), mean_levels=2)

"""Inputs of a race: the shapes of known layers, and never zeros."""

import torch
from workbench_kernels.bench.cases import CASES


def test_flops_and_bytes_of_a_layer_worked_by_hand():
    case = CASES["olmoe"].with_tokens(64)
    assert case.flops == 6 * 64 * 8 * 2048 * 1024
    # all 64 experts are used: 403 million weights of two bytes, and 64 tokens in and out.
    assert case.bytes_touched(torch.bfloat16) == 2 * (3 * 64 * 2048 * 1024 + 2 * 64 * 2048)
    assert CASES["work"].with_tokens(1).bytes_touched(torch.float32) == 4 * (3 * 2 * 256 * 512 + 2 * 256)


def test_inputs_repeat_and_hold_no_zeros():
    first, again = (CASES["work"].with_tokens(8).inputs(torch.float32) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert all(tensor.ne(0).all() for name, tensor in first._asdict().items() if name != "expert")
    assert first.expert.sort(-1).values.diff(dim=-1).ne(0).all(), "no expert twice for a token"

"""Whole numbers with a scale for each group."""

import pytest
import torch

from workbench.offload.formats._groups import grouped, rounded, scaled


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((4, 128), (4, 2, 64)), ((4, 100), (4, 2, 64)), ((3, 2, 10), (6, 1, 10)), ((65,), (1, 2, 64)), ((1,), (1, 1, 1))],
)
def test_rows_are_cut_into_groups_and_filled_up(shape, expected):
    assert grouped(torch.Size(shape), 64) == expected


def test_a_group_by_hand():
    codes, scale = rounded(torch.tensor([[7.0, -3.4, 0.5, 0.0], [0.0, 0.0, 0.0, 0.0]]), 4, 7)
    # a half is rounded to the even side.
    assert codes.tolist() == [[[7, -3, 0, 0]], [[0, 0, 0, 0]]]
    assert scale.tolist() == [[1.0], [0.0]]
    out = torch.empty(2, 4)
    scaled(codes.view(-1), scale, out, 4)
    assert out.tolist() == [[7, -3, 0, 0], [0, 0, 0, 0]]


@pytest.mark.parametrize("size", [1e-30, 1e-3, 1.0, 1e30])
@pytest.mark.parametrize("most", [7, 127])
@pytest.mark.parametrize("shape", [(6, 64), (3, 5, 40), (17,)])
def test_no_weight_is_off_by_more_than_half_a_scale(shape, most, size):
    values = torch.randn(shape, generator=torch.Generator().manual_seed(1)) * size
    codes, scale = rounded(values, 16, most)
    out = torch.empty(shape)
    scaled(codes.flatten(), scale, out, 16)
    _, _, width = grouped(values.shape, 16)
    half = scale.float().repeat_interleave(width, -1)[:, : shape[-1]].reshape(shape) / 2
    # codes times scales are exact in float32: what is left is the rounding of the quotient.
    assert ((out - values).abs() <= half * (1 + 1e-5)).all()
    assert codes.abs().max() == most and out.ne(values).any()


def test_half_precision_rounds_what_float32_says():
    values = torch.randn(4, 32, generator=torch.Generator().manual_seed(2))
    codes, scale = rounded(values, 16, 7)
    wide, narrow = torch.empty(4, 32), torch.empty(4, 32, dtype=torch.bfloat16)
    scaled(codes.flatten(), scale, wide, 16)
    scaled(codes.flatten(), scale, narrow, 16)
    assert torch.equal(narrow, wide.bfloat16())

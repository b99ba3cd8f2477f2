"""Eight signs in a byte."""

import pytest
import torch

from workbench.offload.formats._signs import packed_signs, signs


def test_the_first_sign_is_the_highest_bit_and_zero_is_positive():
    assert packed_signs(torch.tensor([0.0, -1, -1, -1, -1, -1, -1, 2])).tolist() == [0b10000001]
    assert packed_signs(torch.tensor([1.0, -1.0, -0.0])).tolist() == [0b10100000]


@pytest.mark.parametrize("count", [1, 7, 8, 9, 64, 1001])
def test_packing_and_back_is_the_identity(count):
    values = torch.randn(count, generator=torch.Generator().manual_seed(count))
    packed = packed_signs(values)
    assert len(packed) == -(-count // 8)
    assert torch.equal(signs(packed, count), values.sign())

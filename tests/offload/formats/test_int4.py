"""Four bits per weight."""

import pytest
import torch

from workbench.offload.formats.int4 import Int4
from workbench.offload.formats.int8 import Int8
from workbench.offload.store.blocks import parts_of


def test_two_codes_lie_in_a_byte():
    page = Int4().encode([torch.randn(128, 256)]).pages[0]
    assert [tuple(part.shape) for part in page] == [(128 * 256 // 2,), (128, 8)]
    assert parts_of(page).num_bytes == 128 * 256 * (1 / 2 + 2 / 32)


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (1, 33), (7,)])
def test_odd_numbers_of_weights_leave_half_a_byte(shape):
    values = torch.randint(-7, 8, shape, generator=torch.Generator().manual_seed(0)).float()
    values.view(-1)[0] = 7.0
    form = Int4(group=64)
    # whole numbers up to seven are their own codes where the scale is one.
    values[..., 0] = 7.0
    out = [torch.empty(shape)]
    form.decode(form.encode([values]).pages, out)
    assert torch.equal(out[0], values)


def test_two_levels_come_close_to_eight_bits():
    tensors = [torch.randn(64, 128, generator=torch.Generator().manual_seed(3))]
    both, whole = Int4(levels=2).encode(tensors).left, Int8(group=32).encode(tensors).left
    # levels of 15 steps each divide a scale by 14, eight bits divide it by 127 / 7.
    assert both[1] / both[0] < 0.1**2
    assert whole[1] < both[2] < 2 * whole[1]


def test_a_group_has_at_least_one_weight():
    with pytest.raises(ValueError, match="group must be at least 1, got 0"):
        Int4(group=0)

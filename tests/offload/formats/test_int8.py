"""Eight bits per weight."""

import pytest
import torch

from workbench.offload.formats.int8 import Int8
from workbench.offload.store.blocks import parts_of


def test_bytes_are_codes_and_scales():
    page = Int8().encode([torch.randn(128, 256), torch.randn(256, 128)]).pages[0]
    assert [tuple(part.shape) for part in page] == [(128, 4, 64), (128, 4), (256, 2, 64), (256, 2)]
    assert parts_of(page).num_bytes == 2 * 128 * 256 * (1 + 2 / 64)


def test_a_row_by_hand():
    out = [torch.empty(1, 3)]
    pages, left = Int8(group=3).encode([torch.tensor([[127.0, -63.4, 2.6]])])
    Int8(group=3).decode(pages, out)
    assert out[0].tolist() == [[127.0, -63.0, 3.0]]
    assert left == pytest.approx([127**2 + 63.4**2 + 2.6**2, 0.4**2 + 0.4**2], rel=1e-5)


def test_a_group_has_at_least_one_weight():
    with pytest.raises(ValueError, match="group must be at least 1, got 0"):
        Int8(group=0)

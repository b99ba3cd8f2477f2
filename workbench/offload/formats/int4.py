"""Four bits per weight, two in a byte, and a scale for each group."""

from collections.abc import Sequence

import torch
from jaxtyping import Int8, UInt8
from torch import Tensor

from workbench.core.check import at_least
from workbench.offload.expert_format import ExpertFormat, Scales
from workbench.offload.formats._groups import grouped, rounded, scaled

__all__ = ["Int4"]

_MOST, _ZERO = 7, 8


class Int4(ExpertFormat):
    """Round to nearest, symmetric: whole numbers from -7 to 7, times a scale per group.

    Args:
        group: neighbouring weights of a row that share a scale. Ours: 32, so 4.5 bits per weight.
        levels: pages of an expert; the second holds what the first leaves, in the same form, and both together
            come close to eight bits.

    Source: arXiv 2210.17323, section 3 (the round-to-nearest baseline with groups).
    """

    def __init__(self, *, group: int = 32, levels: int = 1):
        super().__init__(levels=levels)
        at_least("group", group, 1)
        self.group = group

    def page_of(self, left: Sequence[Tensor], scales: Scales | None = None) -> list[Tensor]:
        """Packed codes and scales of every tensor in turn."""
        page = []
        for tensor in left:
            codes, scale = rounded(tensor, self.group, _MOST)
            page += [_packed(codes), scale]
        return page

    def write(self, page: Sequence[Tensor], out: Sequence[Tensor]) -> None:
        """Codes times scales."""
        for packed, scale, target in zip(page[::2], page[1::2], out, strict=True):
            rows, groups, width = grouped(target.shape, self.group)
            scaled(_unpacked(packed)[: rows * groups * width], scale, target, self.group)


def _packed(codes: Int8[Tensor, "..."]) -> UInt8[Tensor, "H"]:
    # the halves of the tensor share bytes, not neighbours: unpacking then writes two runs, which is twice as fast.
    flat = (codes.flatten() + _ZERO).view(torch.uint8)
    half = -(-len(flat) // 2)
    low, high = flat[:half], torch.nn.functional.pad(flat[half:], (0, 2 * half - len(flat)))
    return low | (high << 4)


def _unpacked(packed: UInt8[Tensor, "H"]) -> Int8[Tensor, "C"]:
    codes = torch.cat([packed & 15, packed >> 4]).view(torch.int8)
    return codes.sub_(_ZERO)

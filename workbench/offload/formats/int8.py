"""Eight bits per weight, and a scale for each group."""

from collections.abc import Sequence

from torch import Tensor

from workbench.core.check import at_least
from workbench.offload.expert_format import ExpertFormat, Scales
from workbench.offload.formats._groups import rounded, scaled

__all__ = ["Int8"]

_MOST = 127


class Int8(ExpertFormat):
    """Round to nearest, symmetric: whole numbers from -127 to 127, times a scale per group.

    Args:
        group: neighbouring weights of a row that share a scale. Ours: 64, so 8.25 bits per weight.
        levels: pages of an expert; the second holds what the first leaves, in the same form.

    Source: arXiv 2208.07339, section 2.1 (symmetric, by the largest magnitude), with groups in the place of rows.
    """

    def __init__(self, *, group: int = 64, levels: int = 1):
        super().__init__(levels=levels)
        at_least("group", group, 1)
        self.group = group

    def page_of(self, left: Sequence[Tensor], scales: Scales | None = None) -> list[Tensor]:
        """Codes and scales of every tensor in turn."""
        return [part for tensor in left for part in rounded(tensor, self.group, _MOST)]

    def write(self, page: Sequence[Tensor], out: Sequence[Tensor]) -> None:
        """Codes times scales."""
        for codes, scale, target in zip(page[::2], page[1::2], out, strict=True):
            scaled(codes.view(-1), scale, target, self.group)

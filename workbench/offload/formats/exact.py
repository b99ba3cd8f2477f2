"""Experts as they are: the only lossless format, and the default."""

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor

from workbench.offload.expert_format import ExpertFormat, Scales

__all__ = ["Exact"]


class Exact(ExpertFormat):
    """Every tensor as it is in the checkpoint."""

    is_lossless: ClassVar[bool] = True

    def __init__(self) -> None:
        super().__init__(levels=1)

    def page_of(self, left: Sequence[Tensor], scales: Scales | None = None) -> list[Tensor]:
        """The tensors themselves."""
        return list(left)

    def write(self, page: Sequence[Tensor], out: Sequence[Tensor]) -> None:
        """A copy."""
        for one, target in zip(page, out, strict=True):
            target.copy_(one)

"""What a format of experts is: the tensors of an expert as a stack of pages, coarse first."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from math import isfinite
from typing import ClassVar, NamedTuple, final

import torch
from torch import Tensor

from workbench.core.check import at_least

__all__ = ["Encoded", "ExpertFormat", "Scales"]

Scales = Sequence[Tensor | None]
"""For each tensor of an expert the size of every input that it multiplies; None for what is no matrix."""


class Encoded(NamedTuple):
    """An expert as pages.

    Args:
        pages: the tensors of every page, all of the same shapes; any number of the first ones is an expert.
        left: squared norm of the expert, and of what the first page leaves of it, the first two, and so on; of
            columns times the size of their inputs, where that is known.
    """

    pages: list[list[Tensor]]
    left: list[float]


class ExpertFormat(ABC):
    """How experts are written into pages of equal size, and read from the first few of them.

    A format says how one page describes tensors; every further page describes what the pages before it leave.
    So the first pages are the same whatever the budget, and more of them are never another expert.

    Args:
        levels: pages of an expert.

    Attributes:
        is_lossless: what is read is what was written, bit for bit; the engine then computes from the page itself.
        takes_scales: pages may depend on the size of inputs.
    """

    is_lossless: ClassVar[bool] = False
    takes_scales: ClassVar[bool] = False

    def __init__(self, *, levels: int = 1):
        at_least("levels", levels, 1)
        self.levels = levels

    @abstractmethod
    def page_of(self, left: Sequence[Tensor], scales: Scales | None = None) -> list[Tensor]:
        """The tensors of one page that describes these; scales only where the format takes them."""

    @abstractmethod
    def write(self, page: Sequence[Tensor], out: Sequence[Tensor]) -> None:
        """What a page describes, into contiguous tensors of the shapes that it was made of."""

    @final
    def encode(self, tensors: Sequence[Tensor], scales: Scales | None = None) -> Encoded:
        """The pages of an expert.

        Args:
            scales: of the inputs of every tensor, above 0, for a format that takes them.

        Raises:
            ValueError: a weight that is not finite, or too large for the format.
        """
        assert scales is None or self.takes_scales, "whoever asks for a format knows what it takes"
        left = [tensor.detach() for tensor in tensors]
        pages, norms = [], [self._finite(_squared_norm(left, scales))]
        for _ in range(self.levels):
            page = self.page_of(left, scales)
            said = [torch.empty_like(one, dtype=_wide(one), memory_format=torch.contiguous_format) for one in left]
            self.write(page, said)
            left = [one.to(two.dtype) - two for one, two in zip(left, said, strict=True)]
            pages.append(page)
            norms.append(self._finite(_squared_norm(left, scales)))
        return Encoded(pages, norms)

    @final
    def decode(self, pages: Sequence[Sequence[Tensor]], out: Sequence[Tensor]) -> None:
        """What the first pages of an expert say together, added in their order, into dense tensors."""
        first, *more = pages
        if not more:
            self.write(first, out)
            return
        total = [one if one.dtype == _wide(one) else torch.empty_like(one, dtype=_wide(one)) for one in out]
        self.write(first, total)
        term = [torch.empty_like(one) for one in total]
        for page in more:
            self.write(page, term)
            for one, added in zip(total, term, strict=True):
                one.add_(added)
        for one, target in zip(total, out, strict=True):
            if one is not target:
                target.copy_(one)

    def _finite(self, norm: float) -> float:
        if not isfinite(norm):
            raise ValueError(
                f"an expert must be finite, and within half precision for factors, to be held as "
                f"{type(self).__name__}, got a squared norm of {norm:g}; offload this model with format exact"
            )
        return norm


def _wide(tensor: Tensor) -> torch.dtype:
    return torch.promote_types(tensor.dtype, torch.float32)


def _squared_norm(tensors: Sequence[Tensor], scales: Scales | None) -> float:
    """The scaled norm is what the text would miss, up to how inputs go together."""
    total = 0.0
    for tensor, scale in zip(tensors, [None] * len(tensors) if scales is None else scales, strict=True):
        size = tensor.double()
        total += float((size if scale is None else size * scale.unsqueeze(-2)).square().sum())
    return total

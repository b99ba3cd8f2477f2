"""Rows of a plan in parts that stay in a CPU's cache: a piece of one expert, or several experts with few rows each."""

from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

from torch import Tensor

__all__ = ["Part", "Piece", "parts_of"]

# pre-activations of one part, in elements: what the products of a part reuse stays in a core's cache.
_PART_ELEMENTS = 2**20
_LEAST_ROWS = 256


class Piece(NamedTuple):
    """Rows of one expert that are multiplied together.

    Args:
        expert: whose rows they are.
        inner: the rows, counted from the beginning of their part.
        is_first: no earlier piece has rows of this expert.
        is_last: no later piece has rows of this expert.
    """

    expert: int
    inner: slice
    is_first: bool
    is_last: bool


class Part(NamedTuple):
    """Consecutive rows of the plan that are worked on together, and the experts they belong to."""

    rows: slice
    pieces: tuple[Piece, ...]

    @property
    def size(self) -> int:
        """How many rows."""
        return int(self.rows.stop - self.rows.start)


def parts_of(bounds: list[int], stacked: Tensor) -> Iterator[Part]:
    """All rows of experts, in order: experts share a part as long as it fits, and large ones are cut.

    Args:
        bounds: first row of each expert, and the end of the last.
        stacked: the matrices of all experts; they give the length of a row, and the device.
    """
    limit = max(_LEAST_ROWS, _PART_ELEMENTS // max(stacked.shape[1], 1)) if stacked.device.type == "cpu" else 2**31
    start, pieces = 0, list[Piece]()
    for expert, (low, high) in enumerate(pairwise(bounds)):
        for at in range(low, high, limit):
            stop = min(at + limit, high)
            if pieces and stop - start > limit:
                yield Part(slice(start, at), tuple(pieces))
                pieces.clear()
            start = start if pieces else at
            pieces.append(Piece(expert, slice(at - start, stop - start), at == low, stop == high))
    if pieces:
        yield Part(slice(start, bounds[-1]), tuple(pieces))

"""Rows of a plan in parts that stay in a CPU's cache: of one expert, of several, or of several made equally long."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from workbench_kernels.workspace import buffer

__all__ = ["Part", "Piece", "parts_of"]

# pre-activations of one part, in elements: what the products of a part reuse stays in a core's cache.
_PART_ELEMENTS = 2**20
_LEAST_ROWS = 256
# one product of several experts saves more than rows of padding cost: up to half as many as there are.
_MOST_PADDING = 1.5
_LEAST_EXPERTS = 4


class Piece(NamedTuple):
    """Rows of a part that are multiplied together.

    Args:
        expert: whose rows they are; several where each has equally many.
        inner: the rows, counted from the beginning of their part.
        is_first: no earlier piece has rows of this expert.
        is_last: no later piece has rows of this expert.
    """

    expert: int | slice
    inner: slice
    is_first: bool
    is_last: bool

    def of(self, local: Tensor) -> Tensor:
        """This piece of a part's rows: a matrix, or one for each of its experts."""
        own = local[self.inner]
        if isinstance(self.expert, int):
            return own
        return own.view(self.expert.stop - self.expert.start, -1, own.shape[1])


@dataclass(frozen=True)
class Part:
    """Consecutive rows that are worked on together.

    Args:
        rows: of the plan.
        pieces: their products.
        place: row of the plan that each row of a part with padding is, or repeats; None without padding.
        back: where the rows of the plan are in a part with padding.
    """

    rows: slice
    pieces: tuple[Piece, ...]
    place: Tensor | None = None
    back: Tensor | None = None

    @property
    def size(self) -> int:
        """How many rows, with padding."""
        return int(self.rows.stop - self.rows.start) if self.place is None else self.place.shape[0]

    def take(self, whole: Tensor, name: str) -> Tensor:
        """These rows of a tensor of the plan; padding repeats rows of the same expert."""
        if self.place is None:
            return whole[self.rows]
        out = buffer(name, (self.size, *whole.shape[1:]), whole.dtype, whole.device)
        return torch.index_select(whole, 0, self.place, out=out)

    def room(self, whole: Tensor, name: str) -> Tensor:
        """Where to write these rows of a tensor of the plan; `settle` brings them there."""
        if self.place is None:
            return whole[self.rows]
        return buffer(name, (self.size, *whole.shape[1:]), whole.dtype, whole.device)

    def settle(self, local: Tensor, whole: Tensor) -> None:
        """What was written to `room` becomes part of the tensor of the plan; padding is left out."""
        if self.back is not None:
            torch.index_select(local, 0, self.back, out=whole[self.rows])

    def without_padding(self, local: Tensor) -> Tensor:
        """Padding set to zero, in place."""
        if self.back is None:
            return local
        kept = local[self.back]
        local.zero_()[self.back] = kept
        return local


def parts_of(bounds: list[int], stacked: Tensor, *, has_batches: bool = False) -> Iterator[Part]:
    """All rows of experts in parts that fit into a CPU's cache.

    Args:
        bounds: first row of each expert, and the end of the last.
        stacked: the matrices of all experts, which give the length of a row of a part.
        has_batches: small experts of about as many rows become one piece, where padding makes them equally long.
    """
    limit = max(_LEAST_ROWS, _PART_ELEMENTS // max(stacked.shape[1], 1)) if stacked.device.type == "cpu" else 2**31
    group: list[tuple[int, int, int]] = []
    for expert, (low, high) in enumerate(pairwise(bounds)):
        for at in range(low, high, limit):
            stop = min(at + limit, high)
            if group and stop - group[0][1] > limit:
                yield _part(group, bounds, has_batches)
                group = []
            group.append((expert, at, stop))
    if group:
        yield _part(group, bounds, has_batches)


def _part(group: list[tuple[int, int, int]], bounds: list[int], has_batches: bool) -> Part:
    start, stop = group[0][1], group[-1][2]
    is_whole = bounds[group[0][0]] == start and bounds[group[-1][0] + 1] == stop
    longest = max(high - low for _, low, high in group)
    is_even = len(group) * longest <= _MOST_PADDING * (stop - start)
    is_gapless = group[-1][0] - group[0][0] + 1 == len(group) >= _LEAST_EXPERTS
    if has_batches and is_whole and is_even and is_gapless:
        return _batch(group[0][0], bounds[group[0][0] : group[-1][0] + 2], longest)
    pieces = (
        Piece(expert, slice(low - start, high - start), low == bounds[expert], high == bounds[expert + 1])
        for expert, low, high in group
    )
    return Part(slice(start, stop), tuple(pieces))


def _batch(expert: int, bounds: list[int], longest: int) -> Part:
    edges = torch.tensor(bounds, dtype=torch.int32).unsqueeze(1)
    row = edges[:-1] + torch.arange(longest, dtype=torch.int32)
    back = (row < edges[1:]).flatten().nonzero().flatten()
    place = torch.minimum(row, edges[1:] - 1).flatten()
    piece = Piece(slice(expert, expert + len(bounds) - 1), slice(0, place.shape[0]), True, True)
    return Part(slice(bounds[0], bounds[-1]), (piece,), place, back)

"""The load of every expert over a whole optimiser step, for losses that ask balance of all its tokens."""

from collections.abc import Sequence
from typing import final

import torch
import torch.distributed as dist
from jaxtyping import Float, Int
from torch import Tensor

__all__ = ["GlobalCounts", "load_of"]


def load_of(demand: Int[Tensor, "E"]) -> Float[Tensor, "E"]:
    """Share of the assignments that each expert was asked for; all 0 where there are none."""
    return demand.float() / demand.sum().clamp_min(1)


@final
class GlobalCounts:
    """Assignments asked of every expert so far in one optimiser step, over its micro-batches and over ranks.

    One object serves one step, so that the next one, also after a step that was abandoned, counts anew.
    A micro-batch is balanced with itself and those before it: the first ones of a step see noisier loads.

    Args:
        group: ranks that take the step together, each adding its micro-batches in the same order; None: only
            this process.

    Source: arXiv 2501.11873, algorithm 1.
    """

    def __init__(self, group: dist.ProcessGroup | None = None):
        self._group = group
        self._counts: Tensor | None = None

    @torch.no_grad()
    def add(self, demands: Sequence[Int[Tensor, "..."]]) -> list[Float[Tensor, "..."]]:
        """The load of every site once a micro-batch is counted in; the same on all ranks.

        Args:
            demands: rows asked of each expert, one vector for each site.
        """
        if not demands:
            return []
        counts = torch.cat(list(demands))
        if self._group is not None:
            dist.all_reduce(counts, group=self._group)
        self._counts = counts if self._counts is None else self._counts + counts
        return [load_of(own) for own in torch.split(self._counts, [len(demand) for demand in demands])]

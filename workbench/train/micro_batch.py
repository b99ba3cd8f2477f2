"""What one micro-batch leaves behind, and the sum over those of a step."""

from dataclasses import dataclass

import torch

from workbench.core.records import Site, Tally
from workbench.train.loss import Auxiliary

__all__ = ["MicroBatch", "tally"]


@dataclass(frozen=True, kw_only=True, eq=False)
class MicroBatch:
    """A forward and backward pass, after its graph is gone.

    Args:
        loss: mean cross-entropy of its tokens [nat/token].
        tokens: real tokens.
        sites: its routings.
        aux: its auxiliary losses.
    """

    loss: float
    tokens: int
    sites: tuple[Site, ...]
    aux: Auxiliary


def tally(parts: list[MicroBatch]) -> tuple[Tally, ...]:
    """Counts and mean losses of every site, summed over the step's micro-batches."""
    return tuple(_tally(index, site, parts) for index, site in enumerate(parts[0].sites))


def _tally(index: int, site: Site, parts: list[MicroBatch]) -> Tally:
    routings = [part.sites[index].routing for part in parts]
    losses = [part.aux.per_site[index] for part in parts]
    return Tally(
        layer=site.layer,
        iteration=site.iteration,
        demand=torch.stack([routing.demand for routing in routings]).sum(0),
        kept=torch.stack([routing.counts for routing in routings]).sum(0),
        losses={name: sum(own[name] for own in losses) / len(losses) for name in losses[0]},
        tokens=sum(routing.num_tokens for routing in routings),
    )

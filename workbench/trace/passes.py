"""One forward pass, waiting to be packed, and what is taken from its routings."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from workbench.core.records import Batch, Site, Tally
from workbench.core.sparse import SparseRouting

__all__ = ["Choice", "Pass", "Sums", "choose", "label_of", "measure"]


class Sums(NamedTuple):
    """What `/load` needs of one site, summed over its tokens."""

    layer: int
    demand: Int[Tensor, "E"]
    kept: Int[Tensor, "E"]
    prob: Float[Tensor, "P"] | None
    entropy: Float[Tensor, "1"] | None
    tokens: int


class Choice(NamedTuple):
    """What `/routing` needs of one site: the decision for its first tokens."""

    label: tuple[Any, ...]
    expert: Int[Tensor, "T K"]
    weight: Float[Tensor, "T K"]
    kept: Bool[Tensor, "T K"]
    prob: Float[Tensor, "T P"] | None
    ahead: Int[Tensor, "T J"] | None


@dataclass(kw_only=True, eq=False, slots=True)  # frozen would cost 3 us of a decode step
class Pass:
    """One forward pass, or the tallies that a step left. Not changed once made.

    Args:
        tokens: real tokens of the pass.
        take: how many of them keep their routing, counted from the first.
        sequence: number of each row of the batch.
        position: place of each row's first token in its sequence.
        sites: routings still to be measured: those of passes too small to be worth it one by one.
        sums: what was measured at once, acting sites only.
        choices: what was taken at once.
    """

    step: int
    phase: str
    is_probe: bool = False
    tokens: int = 0
    take: int = 0
    with_prob: bool = False
    batch: Batch | None = None
    sequence: Sequence[int] = ()
    position: Sequence[int] = ()
    sites: tuple[Site, ...] = ()
    sums: tuple[Sums, ...] = ()
    choices: tuple[Choice, ...] = ()
    tallies: tuple[Tally, ...] = ()

    @property
    def is_whole(self) -> bool:
        """Whether every token keeps its routing."""
        return self.take == self.tokens


@torch.no_grad()
def measure(site: Site) -> Sums:
    """The sums of one site; they stay on its device."""
    routing = site.routing
    prob = routing.prob
    return Sums(
        layer=site.layer,
        demand=routing.demand,
        kept=routing.counts,
        prob=None if prob is None else prob.float().sum(0),
        entropy=None if prob is None else torch.special.entr(prob.float()).sum().view(1),
        tokens=routing.num_tokens,
    )


def label_of(site: Site) -> tuple[Any, ...]:
    """What tells one place of the `site` dimension from another."""
    return (site.layer, site.iteration, site.module, site.router, site.is_shadow, site.routing.num_experts)


@torch.no_grad()
def choose(site: Site, take: int, *, with_prob: bool) -> Choice:
    """The decision of one site for its first tokens; it stays on its device."""
    routing = site.routing
    if isinstance(routing, SparseRouting):
        # the slots stay as the router filled them; `assignments` would close the gaps.
        expert, weight = _first(routing.expert, take), _first(routing.weight, take)
        kept = expert >= 0 if routing.kept is None else _first(routing.kept, take)
    else:
        expert, weight, kept = _slots(site, take)
    prob = routing.prob if with_prob else None
    return Choice(
        label=label_of(site),
        expert=expert,
        weight=weight,
        kept=kept,
        prob=None if prob is None else _first(prob, take),
        ahead=None if routing.ahead is None else _first(routing.ahead, take),
    )


def _first(array: Tensor, take: int) -> Tensor:
    # a clone of the part lets the whole go; the whole needs no copy.
    return array.detach() if take >= array.shape[0] else array.detach()[:take].clone()


def _slots(site: Site, take: int) -> tuple[Tensor, Tensor, Tensor]:
    flat = site.routing.assignments()
    early = flat.token < take
    token, expert = flat.token[early], flat.expert[early]
    size = min(take, site.routing.num_tokens)
    taken = torch.bincount(token, minlength=size)
    by_token = token.argsort(stable=True)
    rank = torch.arange(token.numel(), device=token.device) - (taken.cumsum(0) - taken)[token[by_token]]
    shape = (size, int(taken.max()) if token.numel() else 0)
    place = (token[by_token], rank)
    return (
        expert.new_full(shape, -1).index_put(place, expert[by_token]),
        flat.weight.new_zeros(shape).index_put(place, flat.weight.detach()[early][by_token]),
        flat.kept.new_zeros(shape).index_put(place, flat.kept[early][by_token]),
    )

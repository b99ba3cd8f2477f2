"""Small passes in a row, such as the steps of a generation, measured together."""

from collections.abc import Sequence
from itertools import groupby

import torch
from torch import Tensor

from workbench.core.records import Site
from workbench.core.sparse import SparseRouting
from workbench.trace.passes import Choice, Pass, Sums, choose, label_of, measure

__all__ = ["resolve"]


def resolve(passes: Sequence[Pass]) -> tuple[list[tuple[Sums, ...]], list[tuple[int, Choice]]]:
    """The sums of every pass, and every decision kept with the index of its first token."""
    sums: list[tuple[Sums, ...]] = []
    choices: list[tuple[int, Choice]] = []
    start = 0
    for form, group in groupby(passes, key=_form):
        items = list(group)
        if form is None or len(items) == 1:
            for item in items:
                sums.append(_sums(item))
                choices += [(start, choice) for choice in _choices(item)]
                start += item.take
            continue
        columns = [_Run(sites) for sites in zip(*(item.sites for item in items), strict=True)]
        measured = [run.sums() for run in columns if not run.site.is_shadow]
        sums += list(zip(*measured, strict=True)) if measured else [()] * len(items)
        choices += [(start, run.choice(with_prob=items[0].with_prob)) for run in columns]
        start += sum(item.take for item in items)
    return sums, choices


def _sums(item: Pass) -> tuple[Sums, ...]:
    # a probe is not what the step did, so its load does not count.
    if item.is_probe:
        return ()
    return item.sums + tuple(measure(site) for site in item.sites if not site.is_shadow)


def _choices(item: Pass) -> tuple[Choice, ...]:
    if not item.take:
        return ()
    return item.choices + tuple(choose(site, item.take, with_prob=item.with_prob) for site in item.sites)


def _form(item: Pass) -> tuple[object, ...] | None:
    """What passes must share to be measured together; None for one that must be alone."""
    if item.is_probe or not item.sites or not item.is_whole:
        return None
    parts: list[object] = []
    for site in item.sites:
        routing = site.routing
        if not isinstance(routing, SparseRouting):
            return None
        prob, ahead = routing.prob, routing.ahead
        widths = (routing.top_k, None if prob is None else prob.shape[1], None if ahead is None else ahead.shape[1])
        parts.append((*label_of(site), *widths, routing.kept is None))
    return tuple(parts)


class _Run:
    """The same site in consecutive passes.

    Args:
        sites: one per pass, alike but for their tokens.
    """

    def __init__(self, sites: Sequence[Site]):
        self.site = sites[0]
        self._routings = [site.routing for site in sites if isinstance(site.routing, SparseRouting)]
        self._expert = torch.cat([routing.expert for routing in self._routings])
        kept = [routing.kept for routing in self._routings if routing.kept is not None]
        self._kept = torch.cat(kept) if kept else self._expert >= 0
        probs = [routing.prob for routing in self._routings if routing.prob is not None]
        self._prob = torch.cat(probs).detach() if probs else None

    @torch.no_grad()
    def sums(self) -> list[Sums]:
        """As `measure`, for each pass."""
        tokens = [routing.num_tokens for routing in self._routings]
        device = self._expert.device
        row = torch.repeat_interleave(torch.tensor(tokens, device=device))
        prob: Sequence[Tensor | None] = [None] * len(tokens)
        entropy: Sequence[Tensor | None] = [None] * len(tokens)
        if self._prob is not None:
            score = self._prob.float()
            prob = score.new_zeros(len(tokens), score.shape[1]).index_add_(0, row, score).unbind()
            spread = torch.special.entr(score).sum(-1, keepdim=True)
            entropy = score.new_zeros(len(tokens), 1).index_add_(0, row, spread).unbind()
        counted = (self._count(row, self._expert >= 0), self._count(row, self._kept), prob, entropy, tokens)
        return [Sums(self.site.layer, *parts) for parts in zip(*counted, strict=True)]

    def choice(self, *, with_prob: bool) -> Choice:
        """As `choose`, for all passes in one."""
        ahead = [routing.ahead for routing in self._routings if routing.ahead is not None]
        return Choice(
            label=label_of(self.site),
            expert=self._expert,
            weight=torch.cat([routing.weight.detach() for routing in self._routings]),
            kept=self._kept,
            prob=self._prob if with_prob else None,
            ahead=torch.cat(ahead) if ahead else None,
        )

    def _count(self, row: Tensor, which: Tensor) -> tuple[Tensor, ...]:
        passes, experts = len(self._routings), self.site.routing.num_experts
        # what is not counted goes to one place behind the last.
        place = torch.where(which, row[:, None] * experts + self._expert, passes * experts).flatten()
        counts = torch.bincount(place, minlength=passes * experts + 1)[:-1]
        return counts.view(passes, experts).unbind()

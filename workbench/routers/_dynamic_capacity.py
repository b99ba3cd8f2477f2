"""Capacity factors that follow the load they meet (Kossmann et al., 2022)."""

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from workbench.core.check import at_least, one_of, within
from workbench.core.context import RouteContext
from workbench.core.records import Tally
from workbench.routers._capacity import capacity_of

__all__ = ["Adaptation", "DynamicCapacity", "capacity_in_force", "dynamic_capacity_of"]

Adaptation = Literal["off", "global", "local"]

_FEWEST_ROWS = 4


class DynamicCapacity(nn.Module):
    """A capacity factor for each expert, moved between steps and never within one.

    A score follows what each expert would have needed to drop nothing, dropped rows included. A factor far
    above its score shrinks to the score and some headroom, one that is nearly used up grows to the same. The
    score lags by about 100 steps, and drops rows meanwhile. Cached assignments, the other use of the paper's
    recompilation, are not here.

    Args:
        num_experts: the model's experts E.
        top_k: choices per token; a factor of 1 holds an even load of them.
        factor: at the start [1].
        scope: `global` has one factor, that of the busiest expert; `local` has one for each.
        smoothing: share of the score that stays in a step [1].
        shrink_below, grow_above: the score, as a share of the factor, at which the factor changes [1].
        headroom: a changed factor, as a multiple of the score [1].
        cap: growth ends here [1].
        fewest_steps: between two changes of any factor of this layer, and before the first.

    Source: arXiv 2205.01848; the rule from its authors' code, where it is a draft. The gap of 200 steps and the
        floor of four rows, without which an expert that shrank once would stay small, are ours.
    """

    factor: Float[Tensor, "E"]
    score: Float[Tensor, "E"]
    steps_since: Int[Tensor, ""]

    def __init__(
        self,
        num_experts: int,
        top_k: int,
        *,
        factor: float,
        scope: Literal["global", "local"],
        smoothing: float = 0.99,
        shrink_below: float = 0.6,
        grow_above: float = 0.92,
        headroom: float = 1.25,
        cap: float = 4.0,
        fewest_steps: int = 200,
    ):
        super().__init__()
        at_least("factor", factor, 0)
        within("smoothing", smoothing, 0, 1)
        within("shrink_below", shrink_below, 0, grow_above, hint="it must stay below grow_above")
        # else a factor that has just changed would be due again.
        within("headroom", headroom, 1 / grow_above, 1 / shrink_below if shrink_below else torch.inf)
        at_least("fewest_steps", fewest_steps, 1)
        self.num_experts, self.top_k = num_experts, top_k
        self.scope = one_of("scope", scope, ("global", "local"))
        self.smoothing, self.shrink_below, self.grow_above = smoothing, shrink_below, grow_above
        self.headroom, self.cap, self.fewest_steps = headroom, cap, fewest_steps
        self.register_buffer("factor", torch.full((num_experts,), float(factor)))
        self.register_buffer("score", torch.full((num_experts,), float(factor)))
        self.register_buffer("steps_since", torch.zeros((), dtype=torch.long))

    def rows(self, tokens: int) -> Int[Tensor, "E"]:
        """Slots of each expert for so many tokens, `ceil(factor * top_k * tokens / num_experts)` and at least 4."""
        exact = self.factor.double() * (self.top_k * tokens) / self.num_experts
        return exact.ceil().long().clamp_min(_FEWEST_ROWS)

    @torch.no_grad()
    def update(self, tallies: Sequence[Tally]) -> None:
        """Follow what a step asked for, on average over its micro-batches; change the factors where that is due."""
        own = [tally for tally in tallies if tally.is_here]
        tokens = sum(tally.tokens for tally in own)
        if not tokens:
            return
        demand = torch.stack([tally.demand for tally in own]).sum(0).to(self.score.device)
        needed = (demand * (self.num_experts / (self.top_k * tokens))).to(self.score)
        needed = needed.max().expand(self.num_experts) if self.scope == "global" else needed
        self.score.lerp_(needed, 1 - self.smoothing)
        self.steps_since += 1
        if int(self.steps_since) < self.fewest_steps:
            return
        fitted = self._fitted()
        if not torch.equal(fitted, self.factor):
            self.factor.copy_(fitted)
            self.steps_since.zero_()

    def _fitted(self) -> Float[Tensor, "E"]:
        wanted = self.headroom * self.score
        shrinks = self.score < self.shrink_below * self.factor
        grows = (self.factor < self.cap) & (self.score > self.grow_above * self.factor)
        return torch.where(shrinks, wanted, torch.where(grows, wanted.clamp_max(self.cap), self.factor))


def dynamic_capacity_of(
    adaptation: Adaptation, num_experts: int, top_k: int, *, capacity_factor: float
) -> DynamicCapacity | None:
    """The factors that a router asks for, None for `off`.

    Args:
        capacity_factor: at the start, as a multiple of tokens / experts: the choices per token are not in it [1].

    Raises:
        ValueError: another word.
    """
    one_of("dynamic_capacity", adaptation, ("off", "global", "local"))
    if adaptation == "off":
        return None
    return DynamicCapacity(num_experts, top_k, factor=capacity_factor / top_k, scope=adaptation)


def capacity_in_force(
    dynamic: DynamicCapacity | None,
    tokens: int,
    num_experts: int,
    context: RouteContext,
    *,
    train: float | None,
    evaluate: float | None,
) -> int | Int[Tensor, "E"] | None:
    """The capacity in this phase [rows]: that of `capacity_of`, or the dynamic one in its place.

    Evaluation uses what training has reached; prefill and decode drop nothing either way.
    """
    capacity = capacity_of(tokens, num_experts, context, train=train, evaluate=evaluate)
    return capacity if dynamic is None or capacity is None else dynamic.rows(tokens)

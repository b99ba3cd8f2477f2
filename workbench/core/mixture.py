"""Routings that mix: slots are mixtures of tokens, merged experts are mixtures of parameters."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.core.context import RouteContext
from workbench.core.routing import Assignments, ExpertBody, Routing
from workbench.core.sparse import SparseRouting

__all__ = ["MergedRouting", "SlotRouting"]


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class SlotRouting(Routing):
    """Every expert works on slots, and a slot is a mixture of tokens; nothing is dropped.

    Args:
        dispatch: share of each token in each slot.
        combine: share of each slot in each token's output.
    """

    dispatch: Float[Tensor, "T E C"]
    combine: Float[Tensor, "T E C"]

    @property
    def num_tokens(self) -> int:
        """Tokens that were routed."""
        return self.dispatch.shape[0]

    @property
    def demand(self) -> Int[Tensor, "E"]:
        """Slots of each expert."""
        experts, slots = self.dispatch.shape[1:]
        return torch.full((experts,), slots, dtype=torch.int64, device=self.dispatch.device)

    @property
    def counts(self) -> Int[Tensor, "E"]:
        """Slots of each expert: all are computed."""
        return self.demand

    def assignments(self) -> Assignments:
        """Each token to each expert, weighted by its summed combine weight."""
        return _dense_assignments(self.combine.sum(-1))

    def apply(self, x: Float[Tensor, "T D"], experts: ExpertBody, context: RouteContext) -> Float[Tensor, "T D"]:
        """Mix tokens into slots, run the experts, mix slots back into tokens."""
        from_slots = SparseRouting.identity(self.demand)
        slots = torch.einsum("tec,td->ecd", self.dispatch.to(x.dtype), x).flatten(0, 1)
        outputs = experts(slots, from_slots, context.without_tokens()).reshape(*self.dispatch.shape[1:], x.shape[1])
        return torch.einsum("tec,ecd->td", self.combine.to(x.dtype), outputs)


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class MergedRouting(Routing):
    """One expert per group of tokens, whose parameters are a mixture of all experts'.

    Args:
        mixture: weight of each expert in the group's merged expert.
        group: the group of each token.
    """

    mixture: Float[Tensor, "G E"]
    group: Int[Tensor, "T"]

    @property
    def num_tokens(self) -> int:
        """Tokens that were routed."""
        return self.group.shape[0]

    @property
    def demand(self) -> Int[Tensor, "E"]:
        """Tokens whose merged expert gives an expert the largest share."""
        winner = self.mixture.argmax(-1)[self.group]
        return torch.bincount(winner, minlength=self.num_experts)

    @property
    def counts(self) -> Int[Tensor, "E"]:
        """As `demand`: nothing is dropped."""
        return self.demand

    def assignments(self) -> Assignments:
        """Each token to each expert, weighted by its share in the merged expert."""
        return _dense_assignments(self.mixture[self.group])

    def apply(self, x: Float[Tensor, "T D"], experts: ExpertBody, context: RouteContext) -> Float[Tensor, "T D"]:
        """Average the parameters once per group, then run the group's tokens through them."""
        stacked, by_group = experts.tensors(), self.group.argsort(stable=True)
        members = torch.split(by_group, torch.bincount(self.group, minlength=len(self.mixture)).tolist())
        parts = []
        for share, member in zip(self.mixture, members, strict=True):
            if len(member):
                merged = tuple(torch.tensordot(share.to(t.dtype), t, dims=1).unsqueeze(0) for t in stacked)
                whole = SparseRouting.identity(torch.tensor([len(member)], device=x.device))
                parts.append(experts.run(merged, x[member], whole, context.without_tokens()))
        return torch.cat(parts)[by_group.argsort()] if parts else torch.zeros_like(x)


def _dense_assignments(weight: Float[Tensor, "T E"]) -> Assignments:
    tokens, experts = weight.shape
    grid = torch.arange(tokens * experts, device=weight.device)
    return Assignments(
        token=grid // max(experts, 1),
        expert=grid % max(experts, 1),
        weight=weight.float().flatten(),
        kept=torch.ones_like(grid, dtype=torch.bool),
    )

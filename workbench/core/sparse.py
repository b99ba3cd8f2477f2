"""Some experts per token: the routing of nearly every router."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from workbench_kernels import RoutingPlan, permute, plan_routing, unpermute

from workbench.core.context import RouteContext
from workbench.core.routing import Assignments, ExpertBody, Routing

__all__ = ["SparseRouting"]


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class SparseRouting(Routing):
    """Each token goes to at most K experts; rows are grouped by expert, in token order.

    Args:
        expert: chosen expert, -1 where the slot is empty.
        weight: what that expert's output is multiplied by.
        kept: False where the slot is empty or was lost to capacity; None when all are kept.
    """

    expert: Int[Tensor, "T K"]
    weight: Float[Tensor, "T K"]
    kept: Bool[Tensor, "T K"] | None = None

    @classmethod
    def from_topk(
        cls,
        expert: Int[Tensor, "T K"],
        weight: Float[Tensor, "T K"],
        *,
        num_experts: int,
        keep: Bool[Tensor, "T K"] | None = None,
        **fields: Any,
    ) -> "SparseRouting":
        """A routing in which every token asks for K experts; `keep` says which it gets."""
        return cls(expert=expert, weight=weight.float(), kept=keep, num_experts=num_experts, **fields)

    @classmethod
    def from_mask(cls, mask: Bool[Tensor, "T E"], weight: Float[Tensor, "T E"], **fields: Any) -> "SparseRouting":
        """A routing in which every token asks for the experts of its mask row, lowest index first."""
        tokens, experts = mask.shape
        width = int(mask.sum(-1).max()) if tokens else 0
        chosen = mask.to(torch.uint8).argsort(dim=-1, descending=True, stable=True)[:, :width]
        present = mask.gather(1, chosen)
        return cls(
            expert=torch.where(present, chosen, -1),
            # filled and not multiplied: what an unchosen weight holds may be infinite.
            weight=weight.gather(1, chosen).masked_fill(~present, 0).float(),
            kept=present,
            num_experts=experts,
            **fields,
        )

    @classmethod
    def from_expert_choice(
        cls,
        token: Int[Tensor, "E C"],
        weight: Float[Tensor, "E C"],
        *,
        num_tokens: int,
        keep: Bool[Tensor, "E C"] | None = None,
        **fields: Any,
    ) -> "SparseRouting":
        """A routing in which every expert asks for C different tokens."""
        experts, slots = token.shape
        flat = token.flatten()
        by_token = flat.argsort(stable=True)
        taken = torch.bincount(flat, minlength=num_tokens)
        rank = torch.arange(flat.numel(), device=flat.device) - (taken.cumsum(0) - taken)[flat[by_token]]
        width = int(taken.max()) if flat.numel() else 0
        place = (flat[by_token], rank)
        expert = flat.new_full((num_tokens, width), -1)
        expert[place] = by_token // max(slots, 1)
        kept = torch.zeros_like(expert, dtype=torch.bool)
        kept[place] = True if keep is None else keep.flatten()[by_token]
        spread = torch.zeros(num_tokens, width, device=flat.device)
        spread = spread.index_put(place, weight.flatten()[by_token].float())
        return cls(expert=expert, weight=spread, kept=kept, num_experts=experts, **fields)

    @classmethod
    def identity(cls, counts: Int[Tensor, "E"]) -> "SparseRouting":
        """A routing of rows that already lie grouped by expert: row i goes where it lies, weight 1."""
        expert = torch.repeat_interleave(torch.arange(len(counts), device=counts.device), counts).unsqueeze(-1)
        return cls(expert=expert, weight=torch.ones_like(expert, dtype=torch.float32), num_experts=len(counts))

    @property
    def num_tokens(self) -> int:
        """Tokens that were routed."""
        return self.expert.shape[0]

    @property
    def top_k(self) -> int:
        """Slots per token, empty ones included."""
        return self.expert.shape[1]

    @cached_property
    def demand(self) -> Int[Tensor, "E"]:
        """Rows asked of each expert, before capacity."""
        return self._tally(self.expert >= 0)

    @cached_property
    def counts(self) -> Int[Tensor, "E"]:
        """Rows each expert computes, after capacity."""
        return self.demand if self.kept is None else self._tally(self.kept)

    @cached_property
    def plan(self) -> RoutingPlan:
        """The decision as kernels take it; rows of an expert keep the order of tokens, so replays are identical."""
        chosen = self.expert if self.kept is None else self.expert.masked_fill(~self.kept, -1)
        return plan_routing(chosen, self.num_experts)

    @cached_property
    def order(self) -> Int[Tensor, "N"]:
        """Flat slot (token * K + choice) of every row; rows are sorted by expert, then by token."""
        has_row = (self.row_of >= 0).flatten().nonzero().squeeze(-1)
        return torch.empty_like(has_row).scatter(0, self.row_of.flatten()[has_row].long(), has_row)

    @cached_property
    def rows(self) -> Int[Tensor, "N"]:
        """The token of every row."""
        return self.plan.rows[: int(self.counts.sum())]

    @property
    def row_of(self) -> Int[Tensor, "T K"]:
        """The row of every slot, -1 where there is none: the inverse of `order`."""
        return self.plan.row_of

    def dispatch(self, x: Float[Tensor, "T D"]) -> tuple[Float[Tensor, "N D"], Int[Tensor, "E"]]:
        """The tokens' rows grouped by expert, and how many each expert has."""
        return permute(x, self.rows, self.row_of), self.counts

    def combine(self, rows: Float[Tensor, "N D"]) -> Float[Tensor, "T D"]:
        """Each token's weighted sum over its rows, added in slot order."""
        return unpermute(rows, self.rows, self.row_of, self.weight.to(rows.dtype))

    def slice(self, low: int, high: int) -> "SparseRouting":
        """The part that concerns experts low to high, renumbered from 0."""
        return self.pick(torch.arange(low, high, device=self.expert.device))

    def pick(self, experts: Int[Tensor, "P"]) -> "SparseRouting":
        """The part that concerns the given experts, renumbered in their order."""
        return self.renumber(experts, torch.arange(len(experts), device=self.expert.device), num_experts=len(experts))

    def renumber(
        self, experts: Int[Tensor, "P"], numbers: Int[Tensor, "P"], *, num_experts: int, is_whole: bool = False
    ) -> "SparseRouting":
        """The part that concerns the given experts, each under its new number.

        Args:
            num_experts: of the new numbering.
            is_whole: no other expert is asked for, so that nothing falls away.
        """
        number = torch.full((self.num_experts + 1,), -1, dtype=torch.int64, device=self.expert.device)
        number[experts] = numbers
        # the last place answers for the empty slots, whose expert is -1.
        expert = number[self.expert]
        kept = self.kept
        if not is_whole:
            kept = (expert >= 0) if kept is None else (expert >= 0) & kept
        return SparseRouting(expert=expert, weight=self.weight, kept=kept, num_experts=num_experts)

    def assignments(self) -> Assignments:
        """Every slot that asked for an expert, in token order."""
        asked = (self.expert >= 0).flatten()
        token = torch.arange(self.expert.numel(), device=self.expert.device) // max(self.top_k, 1)
        kept = torch.ones_like(asked) if self.kept is None else self.kept.flatten()
        return Assignments(
            token=token[asked],
            expert=self.expert.flatten()[asked],
            weight=self.weight.flatten()[asked],
            kept=kept[asked],
        )

    def apply(self, x: Float[Tensor, "T D"], experts: ExpertBody, context: RouteContext) -> Float[Tensor, "T D"]:
        """The weighted sum of each token's experts."""
        return experts(x, self, context)

    def _tally(self, which: Bool[Tensor, "T K"]) -> Int[Tensor, "E"]:
        place = torch.where(which, self.expert, self.num_experts).flatten()
        return torch.bincount(place, minlength=self.num_experts + 1)[: self.num_experts]

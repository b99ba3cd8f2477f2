"""GShard: two experts per token, the second by chance, with a capacity (Lepikhin et al., 2020)."""

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from workbench.core.check import at_least, within
from workbench.core.context import RouteContext
from workbench.core.records import Tally
from workbench.core.router import Card, Router
from workbench.core.routing import Routing
from workbench.core.sparse import SparseRouting
from workbench.routers._capacity import keep_first
from workbench.routers._dynamic_capacity import capacity_in_force, dynamic_capacity_of
from workbench.routers._gate import Gate, check_top_k
from workbench.routers._select import best, steer

__all__ = ["GShardRouter"]

_EPSILON = 1e-9


class GShardRouter(Router):
    """The two best experts of every token, weights normalised before capacity.

    In training the second expert is taken with a probability that grows with its weight; prefill
    and decode always take it and drop nothing. A dropped weight is not given to the other expert.

    Args:
        capacity_factor: training slots per expert, as a multiple of tokens / experts [1].
        eval_capacity_factor: the same for evaluation [1].
        threshold: normalised weight above which the second expert is always taken [1].
        balance: weight of the load-balance loss, over first choices only.
        z: weight of the router z-loss.
        dynamic_capacity: `global` moves `capacity_factor` with the load of the busiest expert, `local` one factor
            for each expert, at most every 200 steps (arXiv 2205.01848). Evaluation then uses them too.

    Source: arXiv 2006.16668, algorithm 1; numbers and the threshold from mesh-tensorflow. The paper's
        rule (twice the weight above a uniform draw) is `threshold=0.5`.
    """

    card = Card(
        "GShard: Scaling Giant Models with Conditional Computation and Automatic Sharding",
        arxiv="2006.16668",
        year=2020,
        changes="selection: top 2, second by chance; capacity, first choices first",
        unverified="the paper's own threshold of 0.5",
    )
    causal = True
    causal_in_training = False
    steerable = True

    def __init__(
        self,
        width: int,
        num_experts: int,
        *,
        layer: int = 0,
        capacity_factor: float = 2.0,
        eval_capacity_factor: float = 2.0,
        threshold: float = 0.2,
        balance: float = 0.01,
        z: float = 0.0,
        dynamic_capacity: Literal["off", "global", "local"] = "off",
    ):
        super().__init__(width, num_experts, layer=layer)
        check_top_k(2, num_experts)
        at_least("capacity_factor", capacity_factor, 0)
        at_least("eval_capacity_factor", eval_capacity_factor, 0)
        within("threshold", threshold, 1e-6, 1)
        self.capacity_factor, self.eval_capacity_factor = capacity_factor, eval_capacity_factor
        self.threshold = threshold
        at_least("balance", balance, 0)
        at_least("z", z, 0)
        self.balance, self.z = balance, z
        self.gate = Gate(width, num_experts)
        self.dynamic = dynamic_capacity_of(dynamic_capacity, num_experts, 2, capacity_factor=capacity_factor)

    @property
    def loss_weights(self) -> Mapping[str, float]:
        """Balance and z-loss."""
        return {"balance": self.balance, "z": self.z}

    def forward(self, x: Float[Tensor, "T D"], context: RouteContext) -> Routing:
        """The two best experts of every token."""
        logit = self.gate(x)
        prob = logit.softmax(-1)
        expert, keep = best(steer(logit, context.bias), 2, may_ban=context.bias is not None)
        chosen = prob.gather(1, expert)
        chosen = chosen if keep is None else chosen * keep
        weight = chosen / (chosen.sum(-1, keepdim=True) + _EPSILON)
        wanted = self._wanted(weight.detach(), keep, context)
        limits = {"train": self.capacity_factor, "evaluate": self.eval_capacity_factor}
        capacity = capacity_in_force(self.dynamic, len(x), self.num_experts, context, **limits)
        if wanted is None and capacity is None:
            return SparseRouting.from_topk(expert, weight, num_experts=self.num_experts, prob=prob, logit=logit)
        wanted = torch.ones_like(expert, dtype=torch.bool) if wanted is None else wanted
        kept = wanted if capacity is None else keep_first(expert, self.num_experts, capacity, wanted=wanted)
        return SparseRouting(
            expert=torch.where(wanted, expert, -1),
            weight=weight * kept,
            kept=kept,
            num_experts=self.num_experts,
            prob=prob,
            logit=logit,
        )

    def _wanted(
        self, weight: Float[Tensor, "T K"], keep: Bool[Tensor, "T K"] | None, context: RouteContext
    ) -> Bool[Tensor, "T K"] | None:
        if not context.is_training:
            return keep
        draw = context.noise((len(weight),), device=weight.device)
        second = draw < weight[:, 1] / self.threshold
        wanted = torch.stack((torch.ones_like(second), second), dim=-1)
        return wanted if keep is None else wanted & keep

    def losses(
        self, routing: Routing, load: Float[Tensor, "E"], token_loss: Float[Tensor, "T"] | None, context: RouteContext
    ) -> dict[str, Tensor]:
        """The balance loss over first choices."""
        assert isinstance(routing, SparseRouting) and routing.prob is not None
        if routing.num_tokens == 0:
            return {"balance": routing.prob.sum()}
        first = routing.expert[:, 0]
        # a token whose every expert is banned has no first choice.
        first = torch.bincount(first[first >= 0], minlength=self.num_experts)
        share = first / routing.num_tokens
        return {"balance": self.num_experts * (share * routing.prob.mean(0)).sum()}

    def update(self, tallies: Sequence[Tally]) -> None:
        """Let the capacity follow the load, where it is dynamic."""
        if self.dynamic is not None:
            self.dynamic.update(tallies)

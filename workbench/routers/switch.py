"""Switch: one expert per token, with a capacity (Fedus et al., 2021)."""

from collections.abc import Mapping, Sequence
from typing import Literal

from jaxtyping import Float
from torch import Tensor

from workbench.core.check import at_least, within
from workbench.core.context import RouteContext
from workbench.core.records import Tally
from workbench.core.router import Card, Router
from workbench.core.routing import Routing
from workbench.core.sparse import SparseRouting
from workbench.routers._capacity import keep_first
from workbench.routers._dynamic_capacity import capacity_in_force, dynamic_capacity_of
from workbench.routers._gate import Gate
from workbench.routers._select import best, steer

__all__ = ["SwitchRouter"]


class SwitchRouter(Router):
    """The best expert of every token, weighted by its raw probability.

    Tokens beyond an expert's capacity are dropped in training and evaluation, in order of position;
    prefill and decode drop nothing.

    Args:
        capacity_factor: training slots per expert, as a multiple of an even load [1].
        eval_capacity_factor: the same for evaluation [1].
        jitter: half width of the uniform factor on the router's input in training [1].
        balance: weight of the load-balance loss.
        z: weight of the router z-loss; ST-MoE uses 1e-3.
        dynamic_capacity: `global` moves `capacity_factor` with the load of the busiest expert, `local` one factor
            for each expert, at most every 200 steps (arXiv 2205.01848). Evaluation then uses them too.

    Source: arXiv 2101.03961, section 2.2; numbers from mesh-tensorflow. Only the router's copy of
        the input is jittered; some ports jitter what the expert sees too.
    """

    card = Card(
        "Switch Transformers: Scaling to Trillion Parameter Models with Simple and Efficient Sparsity",
        arxiv="2101.03961",
        year=2021,
        changes="selection: one expert, raw probability as weight; capacity",
        unverified="z-loss weight 1e-3 of ST-MoE",
    )
    causal = causal_in_training = True
    steerable = True

    def __init__(
        self,
        width: int,
        num_experts: int,
        *,
        layer: int = 0,
        capacity_factor: float = 1.25,
        eval_capacity_factor: float = 2.0,
        jitter: float = 0.01,
        balance: float = 0.01,
        z: float = 0.0,
        dynamic_capacity: Literal["off", "global", "local"] = "off",
    ):
        super().__init__(width, num_experts, layer=layer)
        at_least("capacity_factor", capacity_factor, 0)
        at_least("eval_capacity_factor", eval_capacity_factor, 0)
        within("jitter", jitter, 0, 1)
        self.capacity_factor, self.eval_capacity_factor = capacity_factor, eval_capacity_factor
        self.jitter = jitter
        at_least("balance", balance, 0)
        at_least("z", z, 0)
        self.balance, self.z = balance, z
        self.gate = Gate(width, num_experts)
        self.dynamic = dynamic_capacity_of(dynamic_capacity, num_experts, 1, capacity_factor=capacity_factor)

    @property
    def loss_weights(self) -> Mapping[str, float]:
        """Balance and z-loss."""
        return {"balance": self.balance, "z": self.z}

    def forward(self, x: Float[Tensor, "T D"], context: RouteContext) -> Routing:
        """The best expert of every token."""
        logit = self.gate(self._jittered(x, context))
        prob = logit.softmax(-1)
        expert, keep = best(steer(logit, context.bias), 1, may_ban=context.bias is not None)
        limits = {"train": self.capacity_factor, "evaluate": self.eval_capacity_factor}
        capacity = capacity_in_force(self.dynamic, len(x), self.num_experts, context, **limits)
        if capacity is not None:
            keep = keep_first(expert, self.num_experts, capacity, wanted=keep)
        weight = prob.gather(1, expert)
        weight = weight if keep is None else weight * keep
        return SparseRouting.from_topk(expert, weight, keep=keep, num_experts=self.num_experts, prob=prob, logit=logit)

    def _jittered(self, x: Float[Tensor, "T D"], context: RouteContext) -> Float[Tensor, "T D"]:
        if not (context.is_training and self.jitter):
            return x
        noise = context.noise(tuple(x.shape), device=x.device)
        return x.float() * (1 + self.jitter * (2 * noise - 1))

    def update(self, tallies: Sequence[Tally]) -> None:
        """Let the capacity follow the load, where it is dynamic."""
        if self.dynamic is not None:
            self.dynamic.update(tallies)

"""S-BASE: in training a token's experts come from an even transport plan (Clark et al., 2022)."""

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.core.check import at_least
from workbench.core.context import RouteContext
from workbench.core.router import Card, Router
from workbench.core.routing import Routing
from workbench.core.sparse import SparseRouting
from workbench.routers._capacity import capacity_of, keep_first
from workbench.routers._gate import Gate, check_top_k
from workbench.routers._select import best, steer

__all__ = ["SinkhornRouter", "transport"]

_EPSILON = 1e-8


class SinkhornRouter(Router):
    """The best K experts of each token by a plan with even loads in training, by the logits elsewhere.

    The plan scales rows and columns of the exponential of the logits in turn until every token sends 1 / T
    and every expert gets 1 / E. The choice from it is only nearly even, and looks at the whole batch. The
    weights are those of the logits, never of the plan. In training a bias can only ban: the scaling takes a
    finite one back.

    Args:
        top_k: experts per token.
        capacity_factor: training slots per expert, as a multiple of tokens / experts [1]; None drops nothing.
        tolerance: mean change of the expert scales at which the scaling ends [1].
        rounds: scalings at most. This limit is ours, for logits so far apart that they settle slowly.

    Source: arXiv 2202.01169 (its Sinkhorn variant of BASE); stopping rule and weights (sigmoid for one expert,
        softmax for more) are those of a public descendant.
    """

    card = Card(
        "Unified Scaling Laws for Routed Language Models",
        arxiv="2202.01169",
        year=2022,
        changes="selection: an entropic transport plan in training",
        unverified="gate, number of scalings and capacity of the paper; its code was not released",
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
        top_k: int = 1,
        capacity_factor: float | None = None,
        tolerance: float = 1e-4,
        rounds: int = 200,
    ):
        super().__init__(width, num_experts, layer=layer)
        self.top_k = check_top_k(top_k, num_experts)
        at_least("tolerance", tolerance, 0)
        at_least("rounds", rounds, 1)
        if capacity_factor is not None:
            at_least("capacity_factor", capacity_factor, 0)
        self.capacity_factor, self.tolerance, self.rounds = capacity_factor, tolerance, rounds
        self.gate = Gate(width, num_experts)

    def forward(self, x: Float[Tensor, "T D"], context: RouteContext) -> Routing:
        """The best experts of every token."""
        logit = self.gate(x)
        prob = logit.softmax(-1)
        ranking = steer(logit, context.bias)
        if context.is_training:
            ranking = transport(ranking.detach(), self.tolerance, self.rounds)
        expert, keep = best(ranking, self.top_k, may_ban=context.bias is not None)
        weight = (logit.sigmoid() if self.top_k == 1 else prob).gather(1, expert)
        capacity = capacity_of(len(x), self.num_experts, context, train=self.capacity_factor, evaluate=None)
        if capacity is not None:
            keep = keep_first(expert, self.num_experts, capacity, wanted=keep)
        weight = weight if keep is None else weight * keep
        return SparseRouting.from_topk(expert, weight, keep=keep, num_experts=self.num_experts, prob=prob, logit=logit)


def transport(logit: Float[Tensor, "T E"], tolerance: float, rounds: int) -> Float[Tensor, "T E"]:
    """The plan nearest to the exponential of the logits whose rows sum to 1 / T and columns to 1 / E.

    Args:
        logit: -inf takes an expert out; the others share its part, and its own place in the plan is -inf.
    """
    is_free = (logit > -torch.inf).any(0)
    # a factor per row is what the scaling removes first, and without it the exponential may overflow.
    kernel = (logit - logit.amax(-1, keepdim=True)).exp().nan_to_num(0)
    row, column = torch.ones_like(kernel[:, :1]), torch.ones_like(is_free, dtype=kernel.dtype)
    count = is_free.sum().clamp_min(1)
    for _ in range(rounds if len(logit) else 0):
        row = 1 / (len(logit) * ((kernel * column).sum(-1, keepdim=True) + _EPSILON))
        scaled = is_free / (count * ((kernel * row).sum(0) + _EPSILON))
        column, change = scaled, (scaled - column).abs().mean()
        if float(change) <= tolerance:
            break
    return (kernel * row * column).masked_fill(~is_free, -torch.inf)

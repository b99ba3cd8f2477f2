"""Sparsity-constrained transport: in training a plan with few entries decides who goes where (Liu et al., 2022)."""

import math
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from workbench.core.check import at_least, one_of
from workbench.core.context import RouteContext
from workbench.core.router import Card, Router
from workbench.core.routing import Routing
from workbench.core.sparse import SparseRouting
from workbench.routers._gate import Gate, check_top_k
from workbench.routers._select import best, steer
from workbench.routers._sparse_plan import sparse_plan

__all__ = ["SparseTransportRouter"]

_MULTIPLE = 4


class SparseTransportRouter(Router):
    """In training a transport plan over the batch that is even and has few entries; elsewhere the best K.

    The plan decides the choice, and the weights are the plain probabilities, so no balance loss is needed.
    A token may get no expert. The plan looks at the whole batch, so outside training each token takes its
    best experts, and the two disagree. In training a bias can only ban.

    Args:
        choose: who is limited to few entries. `tokens`: each has top_k experts at most. `experts`: each has
            its capacity at most, as in a choice by experts.
        top_k: experts per token, at most and outside training.
        capacity_factor: tokens of an expert at most, as a multiple of tokens / experts [1], where experts
            choose; rounded up to a multiple of 4. 2 has the load of the default top_k, and is ours.
        gamma: how much a plan's squares cost; less is sharper and slower to find.
        iterations: of the solver.
        rate: learning rate of the solver, which is Adam.

    Source: arXiv 2209.15466, section 4, and its released code. That the plan itself may be the weight is
        left out.
    """

    card = Card(
        "Sparsity-Constrained Optimal Transport",
        arxiv="2209.15466",
        year=2022,
        changes="selection: an even transport plan with few entries, in training",
        unverified="the body of the paper; this follows its code. What to do outside training is ours",
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
        choose: Literal["tokens", "experts"] = "tokens",
        top_k: int = 2,
        capacity_factor: float = 2.0,
        gamma: float = 1.0,
        iterations: int = 20,
        rate: float = 1e-2,
    ):
        super().__init__(width, num_experts, layer=layer)
        self.choose = one_of("choose", choose, ("tokens", "experts"))
        self.top_k = check_top_k(top_k, num_experts)
        at_least("capacity_factor", capacity_factor, 1, hint="with fewer entries no plan reaches every token")
        at_least("gamma", gamma, 1e-6)
        at_least("iterations", iterations, 0)
        at_least("rate", rate, 0)
        self.capacity_factor, self.gamma = capacity_factor, gamma
        self.iterations, self.rate = iterations, rate
        self.gate = Gate(width, num_experts)

    def forward(self, x: Float[Tensor, "T D"], context: RouteContext) -> Routing:
        """The experts of every token."""
        logit = self.gate(x)
        prob = logit.softmax(-1)
        if context.is_training:
            return SparseRouting.from_mask(self._planned(prob.detach(), context.bias), prob, prob=prob, logit=logit)
        expert, keep = best(steer(logit, context.bias), self.top_k, may_ban=context.bias is not None)
        weight = prob.gather(1, expert)
        weight = weight if keep is None else weight * keep
        return SparseRouting.from_topk(expert, weight, keep=keep, num_experts=self.num_experts, prob=prob, logit=logit)

    def _planned(self, prob: Float[Tensor, "T E"], bias: Float[Tensor, "E"] | None) -> Bool[Tensor, "T E"]:
        mask = torch.zeros_like(prob, dtype=torch.bool)
        free = mask.new_ones(self.num_experts) if bias is None else bias > -torch.inf
        tokens, experts = len(prob), int(free.sum())
        if not (tokens and experts):
            return mask
        options = {"gamma": self.gamma, "iterations": self.iterations, "rate": self.rate}
        if self.choose == "tokens":
            plan = sparse_plan(prob[:, free].t(), tokens / experts, 1.0, self.top_k, **options).t()
        else:
            capacity = _MULTIPLE * math.ceil(math.ceil(self.capacity_factor * tokens / experts) / _MULTIPLE)
            plan = sparse_plan(prob[:, free], 1.0, tokens / experts, capacity, **options)
        mask[:, free] = plan > 0
        return mask

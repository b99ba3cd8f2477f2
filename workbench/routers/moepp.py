"""MoE++: cheap experts among the choices, and scores that build on those of the layer below (Jin et al., 2024)."""

from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from workbench.core.check import at_least, within
from workbench.core.context import RouteContext
from workbench.core.router import Card, Router
from workbench.core.routing import Routing
from workbench.core.sparse import SparseRouting
from workbench.core.spec import Spec
from workbench.routers._capacity import keep_first
from workbench.routers._gate import Gate, check_top_k
from workbench.routers._select import best, steer

__all__ = ["MoEPlusPlusRouter"]

_FEWEST_ROWS = 4


class MoEPlusPlusRouter(Router):
    """The best K of the model's experts and of constant, copy and zero experts, which cost almost nothing.

    The logits of the layer below, times a matrix, are added to the logits; the first layer has no matrix.
    Once the load settles a token meets K tau E / (tau E + cheap) of the model's experts on average.

    Args:
        top_k: choices per token, cheap ones included.
        zero: experts that give nothing.
        copy: experts that give the token back.
        constant: experts that mix the token with a learned vector; None means E/4 - 2 and at least 2.
        tau: how much a cheap expert counts in the loss, and the capacity of one of the model's experts as a
            multiple of that of a cheap one [1]. Less tau, fewer of the model's experts per token.
        capacity_factor: training rows of all experts, as a multiple of all choices [1]; None drops nothing.
            No expert has fewer than 4. That the multiple is of choices, not of tokens, is inferred.
        renormalise: as in the released code, a zero choice weighs nothing and the others are divided by their
            sum; the paper's weights are the probabilities.
        balance: the paper's weight of its load-balance loss. The loss is logged as 1 where load is even and
            tau 1; the paper's value there is top_k / experts.

    Source: arXiv 2410.07348, section 3. The released code also doubles the experts' input and scores with a
        two-layer network; neither is in the equations, and neither is here.
    """

    card = Card(
        "MoE++: Accelerating Mixture-of-Experts Methods with Zero-Computation Experts",
        arxiv="2410.07348",
        year=2024,
        changes="experts: zero, copy and constant ones among the choices; score: a residual from the layer below",
        unverified="what the capacity is a multiple of; training code is not released",
    )
    causal = True
    steerable = True

    def __init__(
        self,
        width: int,
        num_experts: int,
        *,
        layer: int = 0,
        top_k: int = 2,
        zero: int = 1,
        copy: int = 1,
        constant: int | None = None,
        tau: float = 0.75,
        capacity_factor: float | None = 1.1,
        renormalise: bool = False,
        balance: float = 0.01,
    ):
        super().__init__(width, num_experts, layer=layer)
        cheap = {"constant": max(num_experts // 4 - 2, 2) if constant is None else constant, "copy": copy, "zero": zero}
        for name, count in cheap.items():
            at_least(name, count, 0)
        self.extra_experts = tuple(Spec(name, {"num_experts": count}) for name, count in cheap.items() if count)
        self.num_cheap, self.num_zero = sum(cheap.values()), zero
        self.top_k = check_top_k(top_k, num_experts + self.num_cheap)
        within("tau", tau, 1e-6, 1)
        at_least("balance", balance, 0)
        if capacity_factor is not None:
            at_least("capacity_factor", capacity_factor, 0)
        self.tau, self.capacity_factor = tau, capacity_factor
        self.renormalise, self.balance = renormalise, balance
        self.causal_in_training = capacity_factor is None
        total = num_experts + self.num_cheap
        self.gate = Gate(width, total)
        # the released code's uniform draw has this standard deviation.
        self.residual = Gate(total, total, std=(3 * total) ** -0.5) if layer else None

    @property
    def loss_weights(self) -> Mapping[str, float]:
        """The balance loss, at the paper's scale."""
        return {"balance": self.balance * self.top_k / (self.num_experts + self.num_cheap)}

    def forward(self, x: Float[Tensor, "T D"], context: RouteContext) -> Routing:
        """The best of all experts, whose logits go on to the next layer."""
        logit = self.gate(x)
        if self.residual is not None and context.previous is not None:
            logit = logit + self.residual(context.previous.carry)
        prob = logit.softmax(-1)
        expert, keep = best(steer(logit, context.bias), self.top_k, may_ban=context.bias is not None)
        weight = self._weight(prob, expert, keep)
        if context.is_training and self.capacity_factor is not None:
            keep = self._fitting(expert, keep)
            weight = weight * keep
        return SparseRouting.from_topk(
            expert, weight, keep=keep, num_experts=logit.shape[1], prob=prob, logit=logit, carry=logit
        )

    def _weight(
        self, prob: Float[Tensor, "T E"], expert: Int[Tensor, "T K"], keep: Bool[Tensor, "T K"] | None
    ) -> Float[Tensor, "T K"]:
        weight = prob.gather(1, expert)
        weight = weight if keep is None else weight * keep
        if self.renormalise:
            weight = weight.masked_fill(expert >= prob.shape[1] - self.num_zero, 0)
            weight = weight / weight.sum(-1, keepdim=True).clamp_min(torch.finfo(weight.dtype).tiny)
        return weight

    def _fitting(self, expert: Int[Tensor, "T K"], keep: Bool[Tensor, "T K"] | None) -> Bool[Tensor, "T K"]:
        assert self.capacity_factor is not None
        total = self.num_experts + self.num_cheap
        rows = self.capacity_factor * expert.numel() / (self.tau * self.num_experts + self.num_cheap)
        own, cheap = (
            keep_first(expert, total, max(_FEWEST_ROWS, int(share * rows)), wanted=keep) for share in (self.tau, 1)
        )
        return torch.where(expert < self.num_experts, own, cheap)

    def losses(
        self, routing: Routing, load: Float[Tensor, "E"], token_loss: Float[Tensor, "T"] | None, context: RouteContext
    ) -> dict[str, Tensor]:
        """The balance loss in which the cheap experts count only tau."""
        assert routing.prob is not None
        counted = load * torch.where(torch.arange(len(load), device=load.device) < self.num_experts, 1.0, self.tau)
        return {"balance": len(load) * (counted * routing.prob.sum(0)).sum() / max(routing.num_tokens, 1)}

"""Noisy top-k: learned noise on the gate, and losses that spread it (Shazeer et al., 2017)."""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.core.check import at_least
from workbench.core.context import RouteContext
from workbench.core.router import Card, Router
from workbench.core.routing import Routing
from workbench.core.sparse import SparseRouting
from workbench.routers._gate import Gate, check_top_k
from workbench.routers._select import best, steer
from workbench.routers._weights import softmax_over

__all__ = ["NoisyTopKRouter"]

_EPSILON = 1e-10


class NoisyTopKRouter(Router):
    """The K best experts after noise of a learned size, so that every expert is tried and load has a slope.

    Both gates start at zero: training begins with pure noise, and before the first step every token
    outside training takes the first K experts. Noise is for training only. The losses leave a person's
    bias out.

    Args:
        top_k: experts per token. The paper mostly uses 4; the authors' code 2, as here.
        noise_floor: smallest standard deviation of the noise [logit].
        importance: weight of the squared variation of the summed weights over experts.
        load: weight of the squared variation of the expected numbers of tokens over experts. With
            `top_k` equal to the experts, or without noise, it counts tokens and teaches nothing.

    Source: arXiv 1701.06538, section 4 and appendix A; weights of the losses from the authors' code.
    """

    card = Card(
        "Outrageously Large Neural Networks: The Sparsely-Gated Mixture-of-Experts Layer",
        arxiv="1701.06538",
        year=2017,
        changes="score: noise of a learned size; losses on importance and expected load",
        unverified="loss weights of the paper itself; 0.01 is the code's",
    )
    causal = causal_in_training = True
    steerable = True

    def __init__(
        self,
        width: int,
        num_experts: int,
        *,
        layer: int = 0,
        top_k: int = 2,
        noise_floor: float = 0.01,
        importance: float = 0.01,
        load: float = 0.01,
    ):
        super().__init__(width, num_experts, layer=layer)
        self.top_k = check_top_k(top_k, num_experts)
        at_least("noise_floor", noise_floor, 1e-6)
        at_least("importance", importance, 0)
        at_least("load", load, 0)
        self.noise_floor, self.importance, self.load = noise_floor, importance, load
        self.gate = Gate(width, num_experts, std=0)
        self.noise_gate = Gate(width, num_experts, std=0)

    @property
    def loss_weights(self) -> Mapping[str, float]:
        """Importance and load."""
        return {"importance": self.importance, "load": self.load}

    def forward(self, x: Float[Tensor, "T D"], context: RouteContext) -> Routing:
        """The K best experts of every token, after noise in training."""
        logit = noisy = self.gate(x)
        inputs = {}
        if context.is_training:
            deviation = torch.nn.functional.softplus(self.noise_gate(x)) + self.noise_floor
            noisy = logit + deviation * context.noise(tuple(logit.shape), device=x.device, normal=True)
            inputs = {"noisy": noisy, "deviation": deviation}
        expert, keep = best(steer(noisy, context.bias), self.top_k, may_ban=context.bias is not None)
        return SparseRouting.from_topk(
            expert,
            softmax_over(noisy, expert, keep),
            keep=keep,
            num_experts=self.num_experts,
            prob=logit.softmax(-1),
            logit=logit,
            loss_inputs=inputs,
        )

    def losses(
        self, routing: Routing, load: Float[Tensor, "E"], token_loss: Float[Tensor, "T"] | None, context: RouteContext
    ) -> dict[str, Tensor]:
        """Squared coefficients of variation over experts."""
        flat = routing.assignments()
        importance = torch.zeros_like(load).index_add(0, flat.expert, flat.weight)
        is_smooth = "noisy" in routing.loss_inputs and self.top_k < self.num_experts
        tokens = self._chance_of_choice(routing).sum(0) if is_smooth else routing.demand.float()
        return {"importance": _squared_variation(importance), "load": _squared_variation(tokens)}

    def _chance_of_choice(self, routing: Routing) -> Float[Tensor, "T E"]:
        """Chance of each expert to be chosen, were its own noise drawn again and the others' kept."""
        noisy, deviation = routing.loss_inputs["noisy"], routing.loss_inputs["deviation"]
        ranked = noisy.sort(dim=-1, descending=True, stable=True).values
        # a chosen expert must beat the best that is not chosen, another one the weakest that is.
        last, first_out = ranked[:, self.top_k - 1 : self.top_k], ranked[:, self.top_k : self.top_k + 1]
        bar = torch.where(noisy > first_out, first_out, last)
        assert routing.logit is not None
        return torch.special.ndtr((routing.logit - bar) / deviation)


def _squared_variation(amount: Float[Tensor, "E"]) -> Float[Tensor, ""]:
    return amount.var(correction=0) / (amount.mean().square() + _EPSILON)

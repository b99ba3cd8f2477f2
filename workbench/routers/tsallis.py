"""Tsallis: top-p with a floor, and all experts for tokens of high entropy (DynMoLE, Li et al., 2025)."""

import math
from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from workbench.core.check import at_least, within
from workbench.core.context import RouteContext
from workbench.core.router import Card, Router
from workbench.core.routing import Routing
from workbench.core.sparse import SparseRouting
from workbench.routers._gate import Gate, check_top_k
from workbench.routers._select import best, steer

__all__ = ["TsallisRouter"]


class TsallisRouter(Router):
    """Few experts for a token the gate is sure of, every expert for one it is not.

    The paper routes LoRA experts, with a decision of its own in every adapted linear map; here the same
    rule routes whole experts, one decision per layer. Weights are raw probabilities, so the output's
    size jumps where a token crosses the threshold. Both losses leave padding out; the code masks it in
    the balance loss only.

    Args:
        top_p: probability that the chosen may reach together [1]; the rank that crosses it is left out.
        top_k: experts that a token always gets.
        threshold: entropy as a share of its maximum [1] above which a token gets every expert; 1 is never.
        index: of the Tsallis entropy [1]; 1 is Shannon's.
        stabiliser: added to every probability inside the entropy [1].
        entropy: weight of the mean entropy, as a share of its maximum.
        balance: weight of the balance loss, over mean weights and not counts.

    Source: arXiv 2504.00661, section 3, and its code, whose formulas this follows.
    """

    card = Card(
        "DynMoLE: Boosting Mixture of LoRA Experts Fine-Tuning with a Hybrid Routing Mechanism",
        arxiv="2504.00661",
        year=2025,
        changes="selection: top-p with a floor, all experts above an entropy; entropy loss",
        unverified="the paper's body; rule and numbers are the code's",
    )
    causal = causal_in_training = True
    steerable = True

    def __init__(
        self,
        width: int,
        num_experts: int,
        *,
        layer: int = 0,
        top_p: float = 0.75,
        top_k: int = 2,
        threshold: float = 0.9,
        index: float = 1.1,
        stabiliser: float = 1e-5,
        entropy: float = 0.01,
        balance: float = 0.001,
    ):
        super().__init__(width, num_experts, layer=layer)
        within("top_p", top_p, 0, 1)
        self.top_k = check_top_k(top_k, num_experts)
        within("threshold", threshold, 0, 1)
        within("index", index, 1e-3, 2)
        within("stabiliser", stabiliser, 0, 0.1)
        at_least("entropy", entropy, 0)
        at_least("balance", balance, 0)
        self.top_p, self.threshold, self.index, self.stabiliser = top_p, threshold, index, stabiliser
        self.entropy, self.balance = entropy, balance
        self.gate = Gate(width, num_experts)
        nn.init.uniform_(self.gate.weight, -(width**-0.5), width**-0.5)

    @property
    def loss_weights(self) -> Mapping[str, float]:
        """Entropy and balance."""
        return {"entropy": self.entropy, "balance": self.balance}

    def forward(self, x: Float[Tensor, "T D"], context: RouteContext) -> Routing:
        """The experts of every token, by its own uncertainty."""
        logit = self.gate(x)
        prob = logit.softmax(-1)
        chosen = self._chosen(steer(logit, context.bias).detach())
        return SparseRouting.from_mask(chosen, prob, prob=prob, logit=logit)

    def _chosen(self, logit: Float[Tensor, "T E"]) -> Bool[Tensor, "T E"]:
        prob = logit.softmax(-1)
        expert, keep = best(logit, self.num_experts, may_ban=True)
        # clamped: in float32 the last sum is often a little above 1.
        taken = prob.gather(1, expert).cumsum(-1).clamp_max(1) <= self.top_p
        taken[:, : self.top_k] = True
        if self.threshold < 1:
            taken |= (self._entropy(prob) > self.threshold).unsqueeze(-1)
        return torch.zeros_like(taken).scatter(1, expert, taken & keep)

    def _entropy(self, prob: Float[Tensor, "T E"]) -> Float[Tensor, "T"]:
        """Tsallis entropy as a share of that of even probabilities."""
        share = (prob + self.stabiliser).clamp_min(torch.finfo(prob.dtype).tiny)
        if abs(self.index - 1) < 1e-4:
            return -(share * share.log()).sum(-1) / (math.log(self.num_experts) or 1)
        # the factor 1 / (index - 1) of both cancels; a single expert has an entropy of 0.
        return (1 - share.pow(self.index).sum(-1)) / (1 - self.num_experts ** (1 - self.index) or 1)

    def losses(
        self, routing: Routing, load: Float[Tensor, "E"], token_loss: Float[Tensor, "T"] | None, context: RouteContext
    ) -> dict[str, Tensor]:
        """Mean entropy, and the balance of mean weights and probabilities."""
        assert routing.prob is not None
        tokens, flat = max(1, routing.num_tokens), routing.assignments()
        mean_weight = torch.zeros_like(load).index_add(0, flat.expert, flat.weight) / tokens
        balance = self.num_experts * (mean_weight * routing.prob.sum(0) / tokens).sum()
        return {"entropy": self._entropy(routing.prob).sum() / tokens, "balance": balance}

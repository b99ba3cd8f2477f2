"""Loss-free balancing: a bias on the choice, moved after every step (Wang et al., 2024)."""

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.core.check import at_least, one_of
from workbench.core.context import RouteContext
from workbench.core.records import Tally
from workbench.core.router import Card, Router
from workbench.core.routing import Routing
from workbench.core.sparse import SparseRouting
from workbench.routers._gate import Gate, check_top_k
from workbench.routers._select import best, steer

__all__ = ["LossFreeRouter"]


class LossFreeRouter(Router):
    """An even load without a balance loss: experts that had too many tokens are ranked lower next step.

    The bias takes part in the choice and never in the weight, and is not trained. It moves once per
    optimiser step, by the counts of all micro-batches and ranks, so no token sees a later one. It is
    saved, and rests outside training.

    Args:
        top_k: experts per token. The paper's 6 of 64; 2 is ours, for few experts.
        score: of an expert, `sigmoid` of its logit or the `softmax` over all.
        rule: `sign` moves every bias by `speed`; `proportional` by `speed` times what the count lacks to the
            mean, as a share of the mean (the paper names no unit, the share is ours); `multiplicative` is
            `sign` on a factor that begins at 1. For softmax the paper takes `proportional`.
        speed: how far a bias moves in a step [score].
        renormalise: divide the chosen scores by their sum. DeepSeek-V3 does, with a `scale` of 2.5.
        scale: what the weights are multiplied by at the end [1].

    Source: arXiv 2408.15664, algorithm 1, equations 1 to 7, appendices for the other rules.
    """

    card = Card(
        "Auxiliary-Loss-Free Load Balancing Strategy for Mixture-of-Experts",
        arxiv="2408.15664",
        year=2024,
        changes="selection: a bias per expert, moved towards an even load",
        unverified="the unit of the proportional rule",
    )
    causal = causal_in_training = True
    steerable = True
    selection_bias: Float[Tensor, "E"]

    def __init__(
        self,
        width: int,
        num_experts: int,
        *,
        layer: int = 0,
        top_k: int = 2,
        score: Literal["sigmoid", "softmax"] = "sigmoid",
        rule: Literal["sign", "proportional", "multiplicative"] = "sign",
        speed: float = 1e-3,
        renormalise: bool = False,
        scale: float = 1.0,
    ):
        super().__init__(width, num_experts, layer=layer)
        self.top_k = check_top_k(top_k, num_experts)
        self.score = one_of("score", score, ("sigmoid", "softmax"))
        self.rule = one_of("rule", rule, ("sign", "proportional", "multiplicative"))
        at_least("speed", speed, 0)
        at_least("scale", scale, 0)
        self.speed, self.renormalise, self.scale = speed, renormalise, scale
        self.gate = Gate(width, num_experts)
        self.register_buffer("selection_bias", torch.full((num_experts,), float(rule == "multiplicative")))

    def forward(self, x: Float[Tensor, "T D"], context: RouteContext) -> Routing:
        """The K experts of every token with the highest biased scores."""
        logit = self.gate(x)
        score = logit.sigmoid() if self.score == "sigmoid" else logit.softmax(-1)
        bias = self.selection_bias.float()
        ranking = score * bias if self.rule == "multiplicative" else score + bias
        expert, keep = best(steer(ranking, context.bias), self.top_k, may_ban=context.bias is not None)
        weight = score.gather(1, expert)
        weight = weight if keep is None else weight * keep
        if self.renormalise:
            weight = weight / weight.sum(-1, keepdim=True).clamp_min(torch.finfo(weight.dtype).tiny)
        return SparseRouting.from_topk(
            expert,
            weight * self.scale,
            keep=keep,
            num_experts=self.num_experts,
            prob=score / score.sum(-1, keepdim=True).clamp_min(torch.finfo(score.dtype).tiny),
            logit=logit,
        )

    @torch.no_grad()
    def update(self, tallies: Sequence[Tally]) -> None:
        """Move the bias of each expert towards what its count lacked to the mean."""
        own = [tally.demand.cpu() for tally in tallies if tally.is_here]
        counts = torch.stack(own).sum(0) if own else torch.zeros(self.num_experts)
        mean = counts.double().mean()
        lack = mean - counts
        step = lack / mean.clamp_min(1e-9) if self.rule == "proportional" else lack.sign()
        self.selection_bias += (self.speed * step).to(self.selection_bias)

"""SMoE-Dropout: a random router that never learns, and ever more experts (Chen et al., 2023)."""

from jaxtyping import Float
from torch import Tensor

from workbench.core.context import RouteContext
from workbench.core.router import Card, Router
from workbench.core.routing import Routing
from workbench.core.sparse import SparseRouting
from workbench.routers._frozen import FrozenLinear
from workbench.routers._growing_k import GrowingTopK, Growth
from workbench.routers._select import best, steer
from workbench.routers._weights import softmax_over

__all__ = ["SMoEDropoutRouter"]


class SMoEDropoutRouter(Router):
    """One model for any number of experts per token: more of them is better, up to all, without collapse.

    The gate is drawn once and frozen, so there is no gradient to it and no loss on it; the load is
    uneven from the start and stays so. During training the experts per token grow from `min_top_k`
    to `max_top_k`; in a run whose length is not known they are `max_top_k`. With every expert chosen
    the layer is a softmax mixture and not the dense layer that the experts may be cut from.

    Args:
        min_top_k: experts per token at the first step; None is half of the experts.
        max_top_k: at the last step; None is all.
        growth: `linear`, `cosine` or `exponential`.
        eval_top_k: outside training; may be set anew between generations. None is `max_top_k`.

    Source: arXiv 2303.01610, section 3, and its code, from which the default numbers come. The code
        evaluates with all experts and with 2.
    """

    card = Card(
        "Sparse MoE as the New Dropout: Scaling Dense and Self-Slimmable Transformers",
        arxiv="2303.01610",
        year=2023,
        changes="gate: random and frozen; a number of choices that grows in training",
        unverified="the paper's own starting number; half of the experts is the code's",
    )
    causal = causal_in_training = True
    steerable = True

    def __init__(
        self,
        width: int,
        num_experts: int,
        *,
        layer: int = 0,
        min_top_k: int | None = None,
        max_top_k: int | None = None,
        growth: Growth = "linear",
        eval_top_k: int | None = None,
    ):
        super().__init__(width, num_experts, layer=layer)
        self.top_k = GrowingTopK.of(num_experts, low=min_top_k, high=max_top_k, growth=growth, evaluate=eval_top_k)
        self.gate = FrozenLinear(width, num_experts)

    def forward(self, x: Float[Tensor, "T D"], context: RouteContext) -> Routing:
        """The best experts of every token, as many as the step says."""
        logit = self.gate(x)
        expert, keep = best(steer(logit, context.bias), self.top_k.at(context), may_ban=context.bias is not None)
        weight = softmax_over(logit, expert, keep)
        return SparseRouting.from_topk(
            expert, weight, keep=keep, num_experts=self.num_experts, prob=logit.softmax(-1), logit=logit
        )

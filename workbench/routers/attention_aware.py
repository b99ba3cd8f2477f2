"""Attention-aware: a token asks the earlier tokens it attends to (Graph of Tokens, 2025)."""

from collections.abc import Mapping
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.core.check import at_least, one_of
from workbench.core.context import RouteContext
from workbench.core.router import Card, Router
from workbench.core.routing import Routing
from workbench.routers._gate import Gate, check_top_k
from workbench.routers._graph import choose

__all__ = ["AttentionAwareRouter"]


class AttentionAwareRouter(Router):
    """Each token's expert distribution is averaged with those of the tokens its layer's attention looks at.

    The first token of a text is routed as without averaging. The distributions go through the attention as
    values, so its matrix is never formed; its queries and keys learn from the routing too.

    Args:
        top_k: experts per token.
        heads: what a token makes of the heads: their `mean`; or `posterior`, each by how close the tokens that
            it looks at come to this one.
        balance: weight of the load-balance loss, over the averaged distributions.

    Source: arXiv 2505.00792, attention-aware routing; the formula is recalled, not read. Ours: the mean of heads
        as the default; a posterior over averaged router inputs, with a variance of 1 in each of the D
        directions taken as a mean; weights as in similarity-aware routing.
    """

    card = Card(
        "Improving Routing in Sparse Mixture of Experts with Graph of Tokens",
        arxiv="2505.00792",
        year=2025,
        changes="score: averaged over attended tokens",
        unverified="the formulas, the posterior over heads, and all numbers",
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
        heads: Literal["mean", "posterior"] = "mean",
        balance: float = 0.01,
    ):
        super().__init__(width, num_experts, layer=layer)
        self.top_k = check_top_k(top_k, num_experts)
        self.heads = one_of("heads", heads, ("mean", "posterior"))
        at_least("balance", balance, 0)
        self.balance = balance
        self.gate = Gate(width, num_experts)

    @property
    def loss_weights(self) -> Mapping[str, float]:
        """Balance."""
        return {"balance": self.balance}

    def forward(self, x: Float[Tensor, "T D"], context: RouteContext) -> Routing:
        """The best K experts of every token's averaged distribution."""
        logit = self.gate(x)
        prob = logit.softmax(-1)
        with torch.autocast(x.device.type, enabled=False):
            values = prob if self.heads == "mean" else torch.cat((prob, x.float()), dim=-1)
            by_head, memory = context.attend(values)
            mixed = self._over_heads(by_head, x.float())
        return choose(mixed, logit, memory, self.top_k, context)

    def _over_heads(self, by_head: Float[Tensor, "T H M"], x: Float[Tensor, "T D"]) -> Float[Tensor, "T E"]:
        if self.heads == "mean":
            return by_head.mean(1)
        prob, seen = by_head.tensor_split([self.num_experts], dim=-1)
        distance = (seen - x.unsqueeze(1)).square().mean(-1)
        return ((-0.5 * distance).softmax(-1).unsqueeze(-1) * prob).sum(1)

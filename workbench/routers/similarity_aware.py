"""Similarity-aware: a token asks the earlier tokens it resembles (Graph of Tokens, 2025)."""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from workbench.core.check import at_least
from workbench.core.context import RouteContext
from workbench.core.router import Card, Router
from workbench.core.routing import Routing
from workbench.routers._gate import Gate, check_top_k
from workbench.routers._graph import choose

__all__ = ["SimilarityAwareRouter"]


class SimilarityAwareRouter(Router):
    """Each token's expert distribution is averaged with those of earlier tokens that resemble it.

    The first token of a text is routed as without averaging. The cache keeps E + D numbers of every token in
    every layer. A large temperature gives all tokens one distribution; watch the load.

    Args:
        top_k: experts per token.
        temperature: what the similarities are divided by [1]; None for the square root of the width, ours.
        balance: weight of the load-balance loss, over the averaged distributions.

    Source: arXiv 2505.00792, similarity-aware routing; the formula is recalled, not read. Ours: tokens see
        only their own past; the similarity starts as a dot product; weights are the averaged probabilities,
        divided by their sum over the chosen.
    """

    card = Card(
        "Improving Routing in Sparse Mixture of Experts with Graph of Tokens",
        arxiv="2505.00792",
        year=2025,
        changes="score: averaged over similar earlier tokens",
        unverified="the formulas and all numbers",
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
        temperature: float | None = None,
        balance: float = 0.01,
    ):
        super().__init__(width, num_experts, layer=layer)
        self.top_k = check_top_k(top_k, num_experts)
        self.temperature = width**0.5 if temperature is None else temperature
        at_least("temperature", self.temperature, 1e-6)
        at_least("balance", balance, 0)
        self.balance = balance
        self.gate = Gate(width, num_experts)
        self.similarity = nn.Parameter(torch.eye(width))

    @property
    def loss_weights(self) -> Mapping[str, float]:
        """Balance."""
        return {"balance": self.balance}

    def forward(self, x: Float[Tensor, "T D"], context: RouteContext) -> Routing:
        """The best K experts of every token's averaged distribution."""
        logit = self.gate(x)
        with torch.autocast(x.device.type, enabled=False):
            x = x.float()
            # attention divides by the root of the width; what is left of the temperature goes into the query.
            query = x @ self.similarity.float() * (self.width**0.5 / self.temperature)
            mixed, memory = context.attend(logit.softmax(-1), query.unsqueeze(1), x.unsqueeze(1))
        return choose(mixed.squeeze(1), logit, memory, self.top_k, context)

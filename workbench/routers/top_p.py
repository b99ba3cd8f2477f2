"""Top-p: each token takes as many experts as it needs to gather enough probability (Huang et al., 2024)."""

from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from workbench.core.check import at_least
from workbench.core.context import RouteContext
from workbench.core.router import Card, Router
from workbench.core.routing import Routing
from workbench.core.sparse import SparseRouting
from workbench.routers._gate import Gate
from workbench.routers._select import best, steer

__all__ = ["TopPRouter"]


class TopPRouter(Router):
    """The fewest experts whose probabilities sum to more than a threshold: a flat gate buys more of them.

    Weights are the raw probabilities, so their sum lies between the threshold and 1. Nothing is dropped;
    early in training, when the gate is flat, nearly `top_p` of all experts work on every token. A bias
    of a person multiplies odds in the choice.

    Args:
        top_p: probability that the chosen must exceed together [1]; near 0 it is top-1, above 1 dense.
        balance: weight of the load-balance loss. It counts the share of tokens that chose an expert, so
            its even value is the mean number of experts per token and not 1.
        entropy: weight of the mean entropy [nat] of a token's probabilities over all experts.

    Source: arXiv 2403.07652, section 3. The rank that crosses the threshold is included, and only more
        than the threshold counts, as in the released code. The normaliser of the balance loss and how
        layers are combined are not verified; here every token counts each of its experts once, and
        layers are summed as for every router.
    """

    card = Card(
        "Harder Tasks Need More Experts: Dynamic Routing in MoE Models",
        arxiv="2403.07652",
        year=2024,
        changes="selection: as many experts as a threshold on their probability needs; entropy loss",
        unverified="loss weights, the normaliser of the balance loss, mean or sum over layers",
    )
    causal = causal_in_training = True
    steerable = True

    def __init__(
        self,
        width: int,
        num_experts: int,
        *,
        layer: int = 0,
        top_p: float = 0.4,
        balance: float = 0.01,
        entropy: float = 1e-4,
    ):
        super().__init__(width, num_experts, layer=layer)
        at_least("top_p", top_p, 0)
        at_least("balance", balance, 0)
        at_least("entropy", entropy, 0)
        self.top_p, self.balance, self.entropy = top_p, balance, entropy
        self.gate = Gate(width, num_experts)

    @property
    def loss_weights(self) -> Mapping[str, float]:
        """Balance, and the entropy that keeps the gate from staying flat."""
        return {"balance": self.balance, "entropy": self.entropy}

    def forward(self, x: Float[Tensor, "T D"], context: RouteContext) -> Routing:
        """As many experts as every token needs."""
        logit = self.gate(x)
        prob = logit.softmax(-1)
        chosen = self._chosen(steer(logit, context.bias).detach())
        return SparseRouting.from_mask(chosen, prob, prob=prob, logit=logit)

    def _chosen(self, logit: Float[Tensor, "T E"]) -> Bool[Tensor, "T E"]:
        expert, keep = best(logit, self.num_experts, may_ban=True)
        mass = logit.softmax(-1).gather(1, expert).cumsum(-1)
        # a rank is taken while the ranks before it are not enough; the first always is.
        taken = torch.nn.functional.pad(mass[:, :-1] <= self.top_p, (1, 0), value=True)
        return torch.zeros_like(taken).scatter(1, expert, taken & keep)

    def losses(
        self, routing: Routing, load: Float[Tensor, "E"], token_loss: Float[Tensor, "T"] | None, context: RouteContext
    ) -> dict[str, Tensor]:
        """The balance loss over shares of tokens."""
        assert routing.prob is not None
        tokens = max(1, routing.num_tokens)
        share, mean_prob = routing.demand / tokens, routing.prob.sum(0) / tokens
        return {"balance": self.num_experts * (share * mean_prob).sum()}

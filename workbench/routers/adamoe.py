"""AdaMoE: null experts take some of a token's choices, so tokens differ in their cost (Zeng et al., 2024)."""

from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from workbench.core.check import at_least
from workbench.core.context import RouteContext
from workbench.core.router import Card, Router
from workbench.core.routing import Routing
from workbench.core.sparse import SparseRouting
from workbench.core.spec import Spec
from workbench.routers._gate import Gate, check_top_k
from workbench.routers._select import best, steer

__all__ = ["AdaMoERouter"]


class AdaMoERouter(Router):
    """The best K of the model's experts and of null experts; a null choice costs nothing.

    A token runs between none and K experts, K E / (E + nulls) on average once the load is even. Ties go to
    the model's experts. The weights do not depend on the nulls: the balance loss alone teaches their columns.

    Args:
        top_k: choices per token, nulls included.
        nulls: null experts; None means as many as the model has, as in the paper's main table.
        identity: a null gives back the token times its probability, instead of nothing. The paper names such
            nulls as future work; the weight is ours.
        balance: the paper's weight of the load-balance loss. The loss is logged as 1 when even, where the
            paper's is top_k. The paper's 0.02; in its second epoch 0.0001, here it stays.

    Source: arXiv 2406.13233, section 3; the weights are its second option. In the released Mixtral code the
        mean over nulls falls on an empty slice; here it is that of the formula.
    """

    card = Card(
        "AdaMoE: Token-Adaptive Routing with Null Experts for Mixture-of-Experts Language Models",
        arxiv="2406.13233",
        year=2024,
        changes="experts: null experts among the choices; loss: the nulls count by their mean",
        unverified="training from scratch, which the paper does not do, and identity nulls",
    )
    causal = causal_in_training = True
    steerable = True

    def __init__(
        self,
        width: int,
        num_experts: int,
        *,
        layer: int = 0,
        top_k: int = 3,
        nulls: int | None = None,
        identity: bool = False,
        balance: float = 0.02,
    ):
        super().__init__(width, num_experts, layer=layer)
        self.nulls = num_experts if nulls is None else nulls
        at_least("nulls", self.nulls, 0)
        at_least("balance", balance, 0)
        self.top_k = check_top_k(top_k, num_experts + self.nulls)
        self.identity, self.balance = identity, balance
        kind = "copy" if identity else "zero"
        self.extra_experts = (Spec(kind, {"num_experts": self.nulls}),) if self.nulls else ()
        self.gate = Gate(width, num_experts + self.nulls)

    @property
    def loss_weights(self) -> Mapping[str, float]:
        """The balance loss, at the paper's scale."""
        return {"balance": self.balance * self.top_k}

    def forward(self, x: Float[Tensor, "T D"], context: RouteContext) -> Routing:
        """The best of all experts, weighted over those that are not null."""
        logit = self.gate(x)
        prob = logit.softmax(-1)
        expert, keep = best(steer(logit, context.bias), self.top_k, may_ban=context.bias is not None)
        weight = self._weight(logit, prob, expert, keep)
        return SparseRouting.from_topk(expert, weight, keep=keep, num_experts=logit.shape[1], prob=prob, logit=logit)

    def _weight(
        self,
        logit: Float[Tensor, "T E"],
        prob: Float[Tensor, "T E"],
        expert: Int[Tensor, "T K"],
        keep: Bool[Tensor, "T K"] | None,
    ) -> Float[Tensor, "T K"]:
        is_null = expert >= self.num_experts
        out = is_null if keep is None else is_null | ~keep
        # over logits and not probabilities: those of the model's experts may all round to 0.
        weight = logit.gather(1, expert).masked_fill(out, -torch.inf).softmax(-1).nan_to_num(0)
        return torch.where(is_null, prob.gather(1, expert), weight) if self.identity else weight

    def losses(
        self, routing: Routing, load: Float[Tensor, "E"], token_loss: Float[Tensor, "T"] | None, context: RouteContext
    ) -> dict[str, Tensor]:
        """The balance loss in which every null counts by the mean of all nulls."""
        assert routing.prob is not None
        own, null = load.split([self.num_experts, self.nulls])
        even = torch.cat((own, null.sum().expand(self.nulls) / max(self.nulls, 1)))
        share = routing.prob.sum(0) / max(routing.num_tokens, 1)
        return {"balance": len(load) * (even * share).sum()}

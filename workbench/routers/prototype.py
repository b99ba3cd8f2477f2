"""Expert prototyping: groups of experts, the best of each (M6-T, Yang et al., 2021)."""

from collections.abc import Mapping

from jaxtyping import Float
from torch import Tensor

from workbench.core.check import at_least
from workbench.core.context import RouteContext
from workbench.core.router import Card, Router
from workbench.core.routing import Routing
from workbench.core.sparse import SparseRouting
from workbench.routers._capacity import capacity_of, keep_first
from workbench.routers._divide import check_divides
from workbench.routers._gate import Gate
from workbench.routers._select import best, steer

__all__ = ["PrototypeRouter"]


class PrototypeRouter(Router):
    """One expert from every group of neighbours: the sum of as many small Switch layers.

    Each weight is the raw probability inside its group, so the weights of a token sum to anything up to
    the number of groups; `prob` is divided by that number. A full expert drops tokens in training and
    evaluation, in order of position and for its own group only; prefill and decode drop nothing. With
    one expert per group every expert works on every token.

    Args:
        prototypes: groups, and so experts per token; it must divide the experts. None is 2, or 1 where
            the number of experts is odd.
        capacity_factor: slots per expert in training and evaluation, as a multiple of the even load inside
            a group [1]: the paper's "k x". Its "1 x" is this divided by `prototypes`.
        balance: weight of the balance loss, summed over groups, so even is `prototypes`. The paper finds
            that it does not help; 0 is the default.

    Source: arXiv 2105.15082, section 3. Only the idea is verified: groups, the best expert of each, a
        linear combination. Softmax inside a group, raw weights and the factor 1.25 are the usual reading.
    """

    card = Card(
        "M6-T: Exploring Sparse Expert Models and Beyond",
        arxiv="2105.15082",
        year=2021,
        changes="selection: the best expert of every group",
        unverified="softmax inside the group, raw weights, capacity, balance loss off",
    )
    causal = causal_in_training = True
    steerable = True

    def __init__(
        self,
        width: int,
        num_experts: int,
        *,
        layer: int = 0,
        prototypes: int | None = None,
        capacity_factor: float = 1.25,
        balance: float = 0.0,
    ):
        super().__init__(width, num_experts, layer=layer)
        usual = 2 if num_experts % 2 == 0 else 1
        self.prototypes = usual if prototypes is None else check_divides("prototypes", prototypes, num_experts)
        at_least("capacity_factor", capacity_factor, 0)
        at_least("balance", balance, 0)
        self.capacity_factor, self.balance = capacity_factor, balance
        self.gate = Gate(width, num_experts)

    @property
    def loss_weights(self) -> Mapping[str, float]:
        """Balance inside each group."""
        return {"balance": self.balance}

    def forward(self, x: Float[Tensor, "T D"], context: RouteContext) -> Routing:
        """The best expert of every group, for every token."""
        logit = self.gate(x)
        prob = logit.unflatten(-1, (self.prototypes, -1)).softmax(-1)
        size = prob.shape[-1]
        ranking = steer(logit, context.bias).reshape(-1, size)
        inside, keep = best(ranking, 1, may_ban=context.bias is not None)
        shape = (len(x), self.prototypes)
        expert = inside.view(shape) + size * inside.new_tensor(range(self.prototypes))
        keep = None if keep is None else keep.view(shape)
        factor = self.capacity_factor
        capacity = capacity_of(len(x), size, context, train=factor, evaluate=factor)
        if capacity is not None:
            keep = keep_first(expert, self.num_experts, capacity, wanted=keep)
        weight = prob.flatten(1).gather(1, expert)
        weight = weight if keep is None else weight * keep
        share = prob.flatten(1) / self.prototypes
        return SparseRouting.from_topk(expert, weight, keep=keep, num_experts=self.num_experts, prob=share, logit=logit)

    def losses(
        self, routing: Routing, load: Float[Tensor, "E"], token_loss: Float[Tensor, "T"] | None, context: RouteContext
    ) -> dict[str, Tensor]:
        """Switch's balance loss inside each group, summed over groups."""
        assert routing.prob is not None
        tokens, size = max(1, routing.num_tokens), self.num_experts // self.prototypes
        mean_prob = self.prototypes * routing.prob.sum(0) / tokens
        return {"balance": size * (routing.demand / tokens * mean_prob).sum()}

"""Expert choice: every expert picks its favourite tokens (Zhou et al., 2022)."""

from jaxtyping import Float
from torch import Tensor

from workbench.core.check import at_least
from workbench.core.context import RouteContext
from workbench.core.router import Card, Router
from workbench.core.routing import Routing
from workbench.core.sparse import SparseRouting
from workbench.routers._gate import Gate
from workbench.routers._select import best, steer

__all__ = ["ExpertChoiceRouter"]


class ExpertChoiceRouter(Router):
    """Perfectly balanced load, at the price of looking at the whole batch.

    A token may get no expert at all, or many. The choice sees later tokens, so `generate` refuses it
    unless it may recompute the whole prefix for every token.

    Args:
        capacity_factor: average number of experts per token [1]. The paper uses 2.

    Source: arXiv 2202.09368, section 3.2.
    """

    card = Card(
        "Mixture-of-Experts with Expert Choice Routing",
        arxiv="2202.09368",
        year=2022,
        changes="selection: experts choose tokens",
    )
    causal = causal_in_training = False
    steerable = True

    def __init__(self, width: int, num_experts: int, *, layer: int = 0, capacity_factor: float = 2.0):
        super().__init__(width, num_experts, layer=layer)
        at_least("capacity_factor", capacity_factor, 0)
        self.capacity_factor = capacity_factor
        self.gate = Gate(width, num_experts)

    def forward(self, x: Float[Tensor, "T D"], context: RouteContext) -> Routing:
        """The favourite tokens of every expert."""
        logit = self.gate(x)
        prob = logit.softmax(-1)
        capacity = min(len(x), max(1, round(self.capacity_factor * len(x) / self.num_experts)))
        # within one expert's column a bias is the same for every token: only a ban changes the choice.
        token, keep = best(steer(prob, context.bias).t(), capacity, may_ban=context.bias is not None)
        weight = prob.t().gather(1, token)
        weight = weight if keep is None else weight * keep
        return SparseRouting.from_expert_choice(token, weight, keep=keep, num_tokens=len(x), prob=prob, logit=logit)

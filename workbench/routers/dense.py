"""Dense: every token goes to every expert, a control without sparsity."""

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.core.context import RouteContext
from workbench.core.router import Card, Router
from workbench.core.routing import Routing
from workbench.core.sparse import SparseRouting
from workbench.routers._gate import Gate
from workbench.routers._select import steer

__all__ = ["DenseRouter"]


class DenseRouter(Router):
    """All E experts of every token, weighted by the softmax of the gate.

    What a sparse router of the same experts can at best approach, at E / K times its cost.

    Source: a control of this project; soft mixtures go back to Jacobs et al., 1991 (no arXiv id).
    """

    card = Card("Dense mixture, a control", changes="selection: none, all experts")
    causal = causal_in_training = True
    steerable = True

    def __init__(self, width: int, num_experts: int, *, layer: int = 0):
        super().__init__(width, num_experts, layer=layer)
        self.gate = Gate(width, num_experts)

    def forward(self, x: Float[Tensor, "T D"], context: RouteContext) -> Routing:
        """Every expert of every token."""
        logit = self.gate(x)
        ranking = steer(logit, context.bias)
        # a bias is for the choice only, and here nothing is chosen: only a ban has an effect.
        keep = None if context.bias is None else (ranking > -torch.inf)
        prob = logit.softmax(-1)
        weight = prob if keep is None else prob * keep
        expert = torch.arange(self.num_experts, device=x.device).expand(len(x), -1)
        return SparseRouting.from_topk(expert, weight, keep=keep, num_experts=self.num_experts, prob=prob, logit=logit)

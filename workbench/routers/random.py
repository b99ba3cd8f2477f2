"""Random: any K experts, a control without learning."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.core.context import RouteContext
from workbench.core.router import Card, Router
from workbench.core.routing import Routing
from workbench.core.seeds import hashed
from workbench.core.sparse import SparseRouting
from workbench.routers._gate import check_top_k
from workbench.routers._select import best

__all__ = ["RandomRouter"]


class RandomRouter(Router):
    """K different experts drawn evenly for each token, each with weight 1/K; there is no gate.

    Training draws anew every step. Elsewhere the draw is fixed by layer, position and token id, so
    that prefill, decode and any batching agree.

    Args:
        top_k: experts per token.

    Source: a control of this project; compare random routing in arXiv 2202.01169.
    """

    card = Card("Random routing, a control", changes="selection: by chance")
    causal = causal_in_training = True

    def __init__(self, width: int, num_experts: int, *, layer: int = 0, top_k: int = 2):
        super().__init__(width, num_experts, layer=layer)
        self.top_k = check_top_k(top_k, num_experts)

    def forward(self, x: Float[Tensor, "T D"], context: RouteContext) -> Routing:
        """K experts of every token by chance."""
        draw = (context.step, context.micro_batch, context.data_rank) if context.is_training else ()
        grid = _identity_of_tokens(x, context).unsqueeze(-1) * self.num_experts
        grid = grid + torch.arange(self.num_experts, device=x.device)
        lots = hashed(grid, context.seed, context.layer, context.iteration, *draw)
        expert, _ = best(lots.double(), self.top_k)
        weight = torch.full(expert.shape, 1 / self.top_k, device=x.device)
        return SparseRouting.from_topk(expert, weight, num_experts=self.num_experts)


def _identity_of_tokens(x: Float[Tensor, "T D"], context: RouteContext) -> Int[Tensor, "T"]:
    if context.position is None or context.token_id is None:
        return torch.arange(len(x), device=x.device)
    own = (context.position << 20) + context.token_id
    if context.is_training and context.sequence is not None:
        own = own + (context.sequence << 40)
    return own

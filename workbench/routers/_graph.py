"""Choosing by a distribution that was averaged over related tokens."""

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.core.context import RouteContext
from workbench.core.sparse import SparseRouting
from workbench.routers._select import best, steer

__all__ = ["choose"]


def choose(
    prob: Float[Tensor, "T E"],
    logit: Float[Tensor, "T E"],
    memory: Float[Tensor, "T W"],
    top_k: int,
    context: RouteContext,
) -> SparseRouting:
    """The K experts with the largest averaged probability, weighted by it, divided by their sum.

    With K = E the weights are the averaged distribution itself.

    Args:
        prob: averaged over each token's past; rows sum to 1 up to rounding.
        logit: of the token alone.
        memory: what the average needs of these tokens later.
    """
    prob = prob / prob.sum(-1, keepdim=True)
    # ranked by logarithms, so that a person's bias is a factor on odds, as for every softmax router.
    ranking = prob.clamp_min(torch.finfo(prob.dtype).tiny).log()
    expert, keep = best(steer(ranking, context.bias), top_k, may_ban=context.bias is not None)
    weight = prob.gather(1, expert)
    weight = weight if keep is None else weight * keep
    weight = weight / weight.sum(-1, keepdim=True).clamp_min(torch.finfo(weight.dtype).tiny)
    return SparseRouting.from_topk(
        expert, weight, keep=keep, num_experts=prob.shape[1], prob=prob, logit=logit, memory=memory
    )

"""Weights of chosen experts."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

__all__ = ["softmax_over"]


def softmax_over(
    logit: Float[Tensor, "T E"], expert: Int[Tensor, "T K"], keep: Bool[Tensor, "T K"] | None
) -> Float[Tensor, "T K"]:
    """The softmax over the chosen logits alone; what is not kept weighs 0, and so does a token without any."""
    is_chosen = torch.zeros_like(logit, dtype=torch.bool)
    is_chosen = is_chosen.scatter(1, expert, torch.ones_like(expert, dtype=torch.bool) if keep is None else keep)
    # summed in the order of the experts and not of the choice: who is chosen first does not move a weight.
    weight = logit.masked_fill(~is_chosen, -torch.inf).softmax(-1).gather(1, expert)
    # a row without any choice is not a number, and so are the weights of all its places.
    return weight if keep is None else weight.masked_fill(~keep, 0)

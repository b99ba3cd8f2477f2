"""Weights of chosen experts."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

__all__ = ["softmax_over"]


def softmax_over(
    logit: Float[Tensor, "T E"], expert: Int[Tensor, "T K"], keep: Bool[Tensor, "T K"] | None
) -> Float[Tensor, "T K"]:
    """The softmax over the chosen logits alone; what is not kept weighs 0, and so does a token without any."""
    chosen = logit.gather(1, expert)
    if keep is None:
        return chosen.softmax(-1)
    return chosen.masked_fill(~keep, -torch.inf).softmax(-1).nan_to_num(0)

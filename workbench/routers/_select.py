"""Choosing experts from scores: ties go to the lowest index, a ban is a score of -inf."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

__all__ = ["Choice", "best", "limit_to_groups", "steer"]

Choice = tuple[Int[Tensor, "T K"], Bool[Tensor, "T K"] | None]


def best(score: Float[Tensor, "T E"], top_k: int, *, may_ban: bool = False) -> Choice:
    """The experts with the highest scores, best first, and which of them are not banned.

    Args:
        may_ban: whether a score can be -inf; without it the second result is None, meaning all.
    """
    # sort is stable and topk is not: equal scores must choose the same experts on every machine.
    ranked, expert = score.detach().sort(dim=-1, descending=True, stable=True)
    keep = ranked[:, :top_k] > -torch.inf if may_ban else None
    return expert[:, :top_k].contiguous(), keep


def steer(score: Float[Tensor, "T Z"], bias: Float[Tensor, "E"] | None) -> Float[Tensor, "T Z"]:
    """The scores with a person's bias on the choice, if there is one; extra experts have none."""
    return score if bias is None else score + nn.functional.pad(bias, (0, score.shape[-1] - len(bias)))


def limit_to_groups(score: Float[Tensor, "T E"], groups: int, groups_kept: int, value: str) -> Float[Tensor, "T E"]:
    """The scores with all but the best groups of experts set to -inf.

    Masking with 0 instead would let a masked expert beat a kept one whose biased score is negative.

    Args:
        value: a group counts by its `max` (DeepSeek-V2) or by the sum of its two best, `top2` (V3).
    """
    grouped = score.unflatten(-1, (groups, -1))
    worth = grouped.amax(-1) if value == "max" else grouped.topk(min(2, grouped.shape[-1]), dim=-1).values.sum(-1)
    kept, _ = best(worth, groups_kept)
    is_kept = torch.zeros_like(worth, dtype=torch.bool).scatter(1, kept, True)
    return grouped.masked_fill(~is_kept.unsqueeze(-1), -torch.inf).flatten(1)

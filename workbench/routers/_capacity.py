"""Capacity: how many rows an expert computes, and which assignments are dropped."""

import math

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from workbench.core.context import RouteContext

__all__ = ["capacity_of", "keep_first", "slots_per_expert"]


def slots_per_expert(tokens: int, num_experts: int, capacity_factor: float, *, minimum: int = 4) -> int:
    """Rows per expert, `max(minimum, floor(capacity_factor * tokens / num_experts))`.

    The number of choices per token is not in the formula, so a top-2 router needs a factor of 2 to
    hold a perfectly balanced load.

    Source: mesh-tensorflow `moe.py`; Megatron multiplies by the choices per token instead.
    """
    return max(minimum, math.floor(capacity_factor * tokens / num_experts))


def capacity_of(
    tokens: int, num_experts: int, context: RouteContext, *, train: float | None, evaluate: float | None
) -> int | None:
    """The capacity in this phase in rows, None for no limit.

    Prefill and decode drop nothing: a capacity over a few tokens never binds in decode, so a limit in
    prefill would make the two disagree.
    """
    factor = {"train": train, "eval": evaluate, "prefill": None, "decode": None}[context.phase]
    return None if factor is None else slots_per_expert(tokens, num_experts, factor)


def keep_first(
    expert: Int[Tensor, "T K"],
    num_experts: int,
    capacity: int | Int[Tensor, "E"],
    *,
    wanted: Bool[Tensor, "T K"] | None = None,
) -> Bool[Tensor, "T K"]:
    """Which assignments find a slot when experts fill up in order.

    All first choices are placed before any second choice, each in token order.

    Args:
        capacity: slots of each expert, one number for all or one for each [rows].
        wanted: False for a slot that asks for nothing; it takes no place.
    """
    by_choice = expert.t().flatten()
    asks = torch.ones_like(by_choice, dtype=torch.bool) if wanted is None else wanted.t().flatten()
    # a stable sort puts each expert's claims side by side, still in order; the rank inside is the slot.
    order = torch.where(asks, by_choice, num_experts).argsort(stable=True)
    claims = torch.bincount(torch.where(asks, by_choice, num_experts), minlength=num_experts + 1)
    first = claims.cumsum(0) - claims
    ranked = torch.where(asks, by_choice, num_experts)[order]
    slot = torch.empty_like(by_choice)
    slot[order] = torch.arange(len(order), device=expert.device) - first[ranked]
    limit = capacity if isinstance(capacity, int) else capacity[by_choice]
    return ((slot < limit) & asks).view(expert.shape[1], expert.shape[0]).t().contiguous()

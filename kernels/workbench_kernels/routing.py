"""Tokens to rows and back, with gathers in both directions: no scatter, no atomics, one fixed order."""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from workbench_kernels.tracing import is_traced

__all__ = ["gather_sum", "permute", "unpermute"]


def gather_sum(
    rows: Float[Tensor, "N D"], row_of: Int[Tensor, "T K"], weight: Float[Tensor, "T K"] | None = None
) -> Float[Tensor, "T D"]:
    """Each token's sum over its rows in slot order, weighted if weights are given; not differentiable."""
    if rows.shape[0] == 0 or row_of.numel() == 0:
        return rows.new_zeros(row_of.shape[0], rows.shape[1])
    if not _may_lack_rows(row_of):
        share = None if weight is None else weight.to(rows.dtype)
        return F.embedding_bag(row_of, rows, mode="sum", per_sample_weights=share)
    total = rows.new_zeros(row_of.shape[0], rows.shape[1])
    for choice in range(row_of.shape[1]):
        places = row_of[:, choice]
        # an absent row must not bring another row's NaN along, so it is masked, not multiplied by 0.
        is_absent = (places < 0).unsqueeze(-1)
        part = rows.index_select(0, places.clamp_min(0)).masked_fill_(is_absent, 0)
        if weight is None:
            total += part
        else:
            total.addcmul_(part, weight[:, choice, None].masked_fill(is_absent, 0))
    return total


def _may_lack_rows(row_of: Tensor) -> bool:
    # asked only where the answer is at hand: not of another device, not while a graph is traced.
    is_at_hand = row_of.device.type == "cpu" and not is_traced(row_of)
    return not is_at_hand or bool((row_of < 0).any())


class _Permute(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, rows: Tensor, row_of: Tensor) -> Tensor:
        ctx.save_for_backward(row_of)
        return x.index_select(0, rows)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return gather_sum(grad, *ctx.saved_tensors), None, None


class _Unpermute(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows_out: Tensor, rows: Tensor, row_of: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(rows_out, rows, row_of, weight)
        return gather_sum(rows_out, row_of, weight)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, Tensor]:
        rows_out, rows, row_of, weight = ctx.saved_tensors
        spread = grad.index_select(0, rows)
        grad_weight = rows_to_slots((spread * rows_out).sum(-1), row_of)
        share = slots_to_rows(weight, row_of, rows.numel()).unsqueeze(-1)
        return spread * share, None, None, grad_weight


def rows_to_slots(value: Float[Tensor, "N"], row_of: Int[Tensor, "T K"]) -> Float[Tensor, "T K"]:
    """The value of every slot's row, 0 where there is no row."""
    if value.numel() == 0:
        return value.new_zeros(row_of.shape)
    return value[row_of.clamp_min(0)].masked_fill(row_of < 0, 0)


def slots_to_rows(value: Float[Tensor, "T K"], row_of: Int[Tensor, "T K"], num_rows: int) -> Float[Tensor, "N"]:
    """The value of every row's slot, 0 where no slot has the row."""
    # the last place takes what the absent slots hold.
    place = torch.where(row_of < 0, num_rows, row_of).flatten().long()
    return value.new_zeros(num_rows + 1).scatter(0, place, value.flatten())[:num_rows]


def permute(x: Float[Tensor, "T D"], rows: Int[Tensor, "N"], row_of: Int[Tensor, "T K"]) -> Float[Tensor, "N D"]:
    """The token of every row.

    Args:
        rows: token of each row; a plan's padding gives copies of token 0 that no slot reads.
        row_of: row of each slot, -1 where there is none.
    """
    result: Tensor = _Permute.apply(x, rows, row_of)  # type: ignore[no-untyped-call]
    return result


def unpermute(
    rows_out: Float[Tensor, "N D"],
    rows: Int[Tensor, "N"],
    row_of: Int[Tensor, "T K"],
    weight: Float[Tensor, "T K"],
) -> Float[Tensor, "T D"]:
    """Each token's weighted sum over its rows, added in slot order."""
    result: Tensor = _Unpermute.apply(rows_out, rows, row_of, weight)  # type: ignore[no-untyped-call]
    return result

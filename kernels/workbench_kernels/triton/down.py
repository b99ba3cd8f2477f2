"""From rows back to tokens: the down-projection, and each token's sum over its rows.

The sum is a second kernel and a gather: no two programs write one number, so there is nothing to be atomic about
and the order of a sum is that of the slots.
"""

from typing import no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Float32, Int32
from torch import Tensor

from workbench_kernels.triton.configs import SMALL_LAUNCH, Config
from workbench_kernels.triton.grouped_mm import multiply
from workbench_kernels.triton.plan import PER_BATCH

__all__ = ["combine", "combine_backward", "down"]

# Numbers of one program of the combining kernel, and the widest piece of a token in it.
TILE, WIDEST = 2048, 1024


@triton.jit(do_not_specialize=PER_BATCH)
@no_type_check
def _combine(
    rows_out, row_of, weight, partial, out, shares, num_tokens, top_k, width, num_parts,
    IS_WEIGHTED: tl.constexpr, SUMS: tl.constexpr, ADDS_PARTS: tl.constexpr,
    BLOCK_T: tl.constexpr, BLOCK_D: tl.constexpr, PARTS: tl.constexpr,
):  # fmt: skip
    """One program owns BLOCK_T tokens and BLOCK_D columns; those of the first columns add the parts of a slot."""
    pieces = tl.cdiv(width, BLOCK_D)
    token = (tl.program_id(0) // pieces).to(tl.int64) * BLOCK_T + tl.arange(0, BLOCK_T)
    piece = tl.program_id(0) % pieces
    column = piece * BLOCK_D + tl.arange(0, BLOCK_D)
    is_token = token < num_tokens
    if SUMS:
        total = tl.zeros([BLOCK_T, BLOCK_D], tl.float32)
        for slot in range(top_k):
            row = tl.load(row_of + token * top_k + slot, is_token, other=-1).to(tl.int64)
            is_read = (row >= 0)[:, None] & (column < width)[None, :]
            tile = tl.load(rows_out + row[:, None] * width + column[None, :], is_read, other=0.0).to(tl.float32)
            if IS_WEIGHTED:
                # the weight of an absent slot is not read: it may be NaN.
                tile *= tl.load(weight + token * top_k + slot, row >= 0, other=0.0)[:, None]
            total += tile
        is_own = is_token[:, None] & (column < width)[None, :]
        tl.store(out + token[:, None] * width + column[None, :], total.to(out.dtype.element_ty), is_own)
    if ADDS_PARTS:
        # after the sum, whose registers are free by then.
        if piece == 0:
            part = tl.arange(0, PARTS)
            for slot in range(top_k):
                row = tl.load(row_of + token * top_k + slot, is_token, other=-1).to(tl.int64)
                is_part = (row >= 0)[:, None] & (part < num_parts)[None, :]
                share = tl.load(partial + row[:, None] * num_parts + part[None, :], is_part, other=0.0)
                tl.store(shares + token * top_k + slot, tl.sum(share, 1), is_token)


def _blocks(width: int) -> tuple[int, int]:
    """Tokens and columns of one program."""
    columns = min(WIDEST, max(16, triton.next_power_of_2(width)))
    return TILE // columns, columns


def down(
    activated: Float[Tensor, "S F"],
    weight: Float[Tensor, "E D F"],
    offsets: Int32[Tensor, "offsets"],
    *,
    config: Config | None = None,
) -> Float[Tensor, "S D"]:
    """The down-projection of every row in use; the rows past the last expert's stay as they are."""
    return multiply(activated, weight, offsets, zeros_rest=False, kernel="down", config=config)


def combine(
    rows_out: Float[Tensor, "S D"],
    row_of: Int32[Tensor, "T K"],
    weight: Float32[Tensor, "T K"],
    *,
    dtype: torch.dtype | None = None,
) -> Float[Tensor, "T D"]:
    """Each token's weighted sum over its rows, in float32 and in the order of its slots.

    Args:
        dtype: that the sum is rounded to, that of the rows if None.
    """
    (num_tokens, top_k), width = row_of.shape, rows_out.shape[1]
    out = torch.empty(num_tokens, width, dtype=dtype or rows_out.dtype, device=rows_out.device)
    tokens, columns = _blocks(width)
    programs = triton.cdiv(num_tokens, tokens) * triton.cdiv(width, columns)
    if programs:
        _combine[(programs,)](
            rows_out, row_of, weight, rows_out, out, out, num_tokens, top_k, width, 0,
            IS_WEIGHTED=True, SUMS=True, ADDS_PARTS=False, BLOCK_T=tokens, BLOCK_D=columns, PARTS=1, **SMALL_LAUNCH,
        )  # fmt: skip
    return out


def combine_backward(
    grad_rows: Float[Tensor, "S D"] | None,
    row_of: Int32[Tensor, "T K"],
    partial: Float32[Tensor, "S parts"] | None,
) -> tuple[Float[Tensor, "T D"] | None, Float32[Tensor, "T K"] | None]:
    """Gradient of the tokens, each the sum over its rows, and of the weights, each the sum of its row's parts.

    Args:
        grad_rows: gradient of the gathered tokens, None if theirs is not needed.
        partial: products of output gradient and output, summed over parts of the row; None likewise.
    """
    some = grad_rows if grad_rows is not None else partial
    if some is None:
        return None, None
    (num_tokens, top_k), num_parts = row_of.shape, 0 if partial is None else partial.shape[1]
    width = 1 if grad_rows is None else grad_rows.shape[1]
    grad = torch.empty(num_tokens, width, dtype=some.dtype, device=some.device) if grad_rows is not None else None
    shares = torch.empty(row_of.shape, dtype=torch.float32, device=some.device) if partial is not None else None
    tokens, columns = _blocks(width)
    programs = triton.cdiv(num_tokens, tokens) * triton.cdiv(width, columns)
    if programs:
        _combine[(programs,)](
            some, row_of, some, some if partial is None else partial, some if grad is None else grad,
            some if shares is None else shares, num_tokens, top_k, width, num_parts,
            IS_WEIGHTED=False, SUMS=grad is not None, ADDS_PARTS=shares is not None,
            BLOCK_T=tokens, BLOCK_D=columns, PARTS=triton.next_power_of_2(max(1, num_parts)), **SMALL_LAUNCH,
        )  # fmt: skip
    return grad, shares

"""Backward through the activation: one product makes its gradient, and all that the other products need leaves with it.

The gradient of a slot's weight is <dO, Y>, which equals <dA, A>: so the outputs Y of the experts are never kept.
"""

from typing import no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Float32, Int32
from torch import Tensor

from workbench_kernels.triton.configs import Config, choose
from workbench_kernels.triton.plan import PER_BATCH, bins_of, locate, tile_bound, tile_of
from workbench_kernels.triton.up import activate_with_slope, halves

__all__ = ["activation_backward"]

# Columns that the end of the kernel holds at once: beside the sum of a wide tile there are few registers.
PIECE = tl.constexpr(32)


@triton.jit
@no_type_check
def _share_of(row, token, row_of, weight, top_k, BLOCK_M: tl.constexpr, SLOTS: tl.constexpr):
    """The weight of each row: that of the one slot of its token which names it."""
    share = tl.zeros([BLOCK_M], tl.float32)
    for done in range(0, top_k, SLOTS):
        slot = done + tl.arange(0, SLOTS)
        at = token[:, None] * top_k + slot[None, :]
        is_own = tl.load(row_of + at, (slot < top_k)[None, :], other=-1) == row[:, None]
        share += tl.sum(tl.load(weight + at, is_own, other=0.0), 1)
    return share


@triton.jit
@no_type_check
def _write_columns(
    total, share, row, end, column, features, hidden, grad_hidden, scaled,
    ACTIVATION: tl.constexpr, NEEDS_HIDDEN: tl.constexpr, NEEDS_SCALED: tl.constexpr,
):  # fmt: skip
    is_own = (row < end)[:, None] & (column < features)[None, :]
    hidden_at = row[:, None] * 2 * features + column[None, :]
    gate = tl.load(hidden + hidden_at, is_own, other=0.0).to(tl.float32)
    up = tl.load(hidden + hidden_at + features, is_own, other=0.0).to(tl.float32)
    value, slope = activate_with_slope(gate, ACTIVATION)
    activated = value * up
    part = tl.sum(total * activated, 1)
    if NEEDS_SCALED:
        product = share[:, None] * activated
        tl.store(scaled + row[:, None] * features + column[None, :], product.to(scaled.dtype.element_ty), is_own)
    if NEEDS_HIDDEN:
        total *= share[:, None]
        kind = grad_hidden.dtype.element_ty
        tl.store(grad_hidden + hidden_at, (total * up * slope).to(kind), is_own)
        tl.store(grad_hidden + hidden_at + features, (total * value).to(kind), is_own)
    return part


@triton.jit
@no_type_check
def _write(
    total, share, row, end, first_column, features, hidden, grad_hidden, scaled,
    ACTIVATION: tl.constexpr, NEEDS_HIDDEN: tl.constexpr, NEEDS_SCALED: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """Writes what leaves a tile, in pieces of at most PIECE columns; returns the sum of <dA, A> over its columns."""
    if BLOCK_N <= PIECE:
        return _write_columns(
            total, share, row, end, first_column + tl.arange(0, BLOCK_N), features, hidden, grad_hidden, scaled,
            ACTIVATION, NEEDS_HIDDEN, NEEDS_SCALED,
        )  # fmt: skip
    else:
        left, right = halves(total, BLOCK_M, BLOCK_N)
        part = _write(
            left, share, row, end, first_column, features, hidden, grad_hidden, scaled,
            ACTIVATION, NEEDS_HIDDEN, NEEDS_SCALED, BLOCK_M, BLOCK_N // 2,
        )  # fmt: skip
        # keeps the compiler from reading ahead for all pieces at once, for which there are no registers.
        tl.debug_barrier()
        return part + _write(
            right, share, row, end, first_column + BLOCK_N // 2, features, hidden, grad_hidden, scaled,
            ACTIVATION, NEEDS_HIDDEN, NEEDS_SCALED, BLOCK_M, BLOCK_N // 2,
        )  # fmt: skip


@triton.jit(do_not_specialize=PER_BATCH)
@no_type_check
def _activation_backward(
    grad, down, hidden, rows, row_of, weight, offsets, grad_hidden, scaled, partial,
    num_rows, num_experts, m_tiles, top_k, width, features,
    ACTIVATION: tl.constexpr, NEEDS_HIDDEN: tl.constexpr, NEEDS_SCALED: tl.constexpr, NEEDS_PARTIAL: tl.constexpr,
    IS_EVEN: tl.constexpr, SLOTS: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, GROUP_M: tl.constexpr, BINS: tl.constexpr,
):  # fmt: skip
    """One program owns BLOCK_M rows of one expert and BLOCK_N of its features."""
    n_tiles = tl.cdiv(features, BLOCK_N)
    m_tile, n_tile = tile_of(tl.program_id(0), m_tiles, n_tiles, GROUP_M)
    expert, first, end = locate(offsets, m_tile, num_rows, num_experts, BLOCK_M, BINS)
    if (first >= end) | (expert >= num_experts):
        return
    row = (first + tl.arange(0, BLOCK_M)).to(tl.int64)
    column = n_tile * BLOCK_N + tl.arange(0, BLOCK_N)
    step = tl.arange(0, BLOCK_K)
    # past the end the last row and the first columns are read again: no mask in the loop, and none is written.
    # The remainder, unlike a minimum, still says that columns lie side by side. Within a tile 32 bits suffice.
    token = tl.load(rows + tl.minimum(row, end - 1)).to(tl.int64)
    grad_at = grad + token[:, None] * width + step[None, :]
    down_at = step[:, None] * features + (column % features)[None, :]
    down += expert.to(tl.int64) * width * features
    total = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    for done in range(0, width, BLOCK_K):
        if IS_EVEN:
            grad_tile, down_tile = tl.load(grad_at), tl.load(down + down_at)
        else:
            is_left = step < width - done
            grad_tile = tl.load(grad_at, is_left[None, :], other=0.0)
            down_tile = tl.load(down + down_at, is_left[:, None], other=0.0)
        total = tl.dot(grad_tile, down_tile, total, input_precision="ieee")
        grad_at += BLOCK_K
        down += BLOCK_K * features
    share = _share_of(row, token, row_of, weight, top_k, BLOCK_M, SLOTS)
    part = _write(
        total, share, row, end, n_tile * BLOCK_N, features, hidden, grad_hidden, scaled,
        ACTIVATION, NEEDS_HIDDEN, NEEDS_SCALED, BLOCK_M, BLOCK_N,
    )  # fmt: skip
    if NEEDS_PARTIAL:
        tl.store(partial + row * n_tiles + n_tile, part, row < end)


def activation_backward(
    grad: Float[Tensor, "T D"],
    down: Float[Tensor, "E D F"],
    hidden: Float[Tensor, "S F2"],
    *,
    rows: Int32[Tensor, "S"],
    row_of: Int32[Tensor, "T K"],
    offsets: Int32[Tensor, "offsets"],
    weight: Float32[Tensor, "T K"],
    activation: str,
    needs: tuple[bool, bool, bool],
    config: Config | None = None,
) -> tuple[Float[Tensor, "S F2"] | None, Float[Tensor, "S F"] | None, Float32[Tensor, "S parts"] | None]:
    """Gradient of the pre-activations, activations times weights, and the parts of each weight's gradient.

    Args:
        grad: gradient of the layer's output.
        hidden: the pre-activations.
        needs: which of the three are made.
        config: instead of the table's.
    """
    num_rows, (num_experts, width, features) = rows.shape[0], down.shape
    per_expert = num_rows / max(1, num_experts)
    config = config or choose(
        "activation_backward", grad, rows_per_expert=per_expert, n=features, k=width, reads=(grad, down)
    )
    n_tiles = triton.cdiv(features, config.block_n)
    dtype, device = grad.dtype, grad.device
    grad_hidden = torch.empty(num_rows, 2 * features, dtype=dtype, device=device) if needs[0] else None
    scaled = torch.empty(num_rows, features, dtype=dtype, device=device) if needs[1] else None
    partial = torch.empty(num_rows, n_tiles, dtype=torch.float32, device=device) if needs[2] else None
    m_tiles = tile_bound(num_rows, num_experts, config.block_m)
    if m_tiles * n_tiles:
        written = (grad if made is None else made for made in (grad_hidden, scaled, partial))
        _activation_backward[(m_tiles * n_tiles,)](
            grad, down, hidden, rows, row_of, weight, offsets, *written,
            num_rows, num_experts, m_tiles, row_of.shape[1], width, features,
            ACTIVATION=activation, NEEDS_HIDDEN=needs[0], NEEDS_SCALED=needs[1], NEEDS_PARTIAL=needs[2],
            IS_EVEN=width % config.block_k == 0, SLOTS=min(8, triton.next_power_of_2(row_of.shape[1])),
            BINS=bins_of(num_experts), **config.launch(),
        )  # fmt: skip
    return grad_hidden, scaled, partial

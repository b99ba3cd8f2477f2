"""Gradients of the experts' matrices: sums over each expert's rows, of which only the GPU knows how many there are."""

from typing import no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int32
from torch import Tensor

from workbench_kernels.triton.configs import SMALL_LAUNCH, Config, Kernel, choose
from workbench_kernels.triton.plan import tile_of

__all__ = ["largest_first", "weight_gradient"]


@triton.jit
@no_type_check
def _largest_first(offsets, order, num_experts, BLOCK: tl.constexpr):
    """One program per block of experts: the place of each in the order from most rows to fewest."""
    expert = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    is_own = expert < num_experts
    count = tl.load(offsets + expert + 1, is_own, other=0) - tl.load(offsets + expert, is_own, other=0)
    place = tl.zeros([BLOCK], tl.int32)
    for begin in range(0, num_experts, BLOCK):
        other = begin + tl.arange(0, BLOCK)
        is_other = other < num_experts
        theirs = tl.load(offsets + other + 1, is_other, other=0) - tl.load(offsets + other, is_other, other=1)
        is_equal = theirs[None, :] == count[:, None]
        is_before = (theirs[None, :] > count[:, None]) | (is_equal & (other[None, :] < expert[:, None]))
        place += tl.sum(is_before.to(tl.int32), 1)
    tl.store(order + place, expert, is_own)


@triton.jit
@no_type_check
def _weight_gradient(
    left, right, rows, offsets, order, out, m_tiles, n_tiles, height, width,
    GATHERS_LEFT: tl.constexpr, GATHERS_RIGHT: tl.constexpr, ADDS: tl.constexpr, IS_ORDERED: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, GROUP_M: tl.constexpr,
):  # fmt: skip
    """One program owns BLOCK_M times BLOCK_N numbers of one expert's gradient and walks over all of its rows."""
    tiles = m_tiles * n_tiles
    expert = tl.program_id(0) // tiles
    if IS_ORDERED:
        expert = tl.load(order + expert)
    m_tile, n_tile = tile_of(tl.program_id(0) % tiles, m_tiles, n_tiles, GROUP_M)
    begin, end = tl.load(offsets + expert), tl.load(offsets + expert + 1)
    if ADDS & (begin == end):
        return
    line = m_tile * BLOCK_M + tl.arange(0, BLOCK_M)
    column = n_tile * BLOCK_N + tl.arange(0, BLOCK_N)
    # past the end the first lines are read again and not written; the remainder, unlike a minimum, still says
    # that they lie side by side.
    left_at = left + (line % height)[None, :]
    right_at = right + (column % width)[None, :]
    total = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    for done in range(begin, end, BLOCK_K):
        row = done + tl.arange(0, BLOCK_K)
        is_row = row < end
        own = row.to(tl.int64)
        token = own
        if GATHERS_LEFT | GATHERS_RIGHT:
            token = tl.load(rows + row, is_row, other=0).to(tl.int64)
        left_row = token if GATHERS_LEFT else own
        right_row = token if GATHERS_RIGHT else own
        left_tile = tl.load(left_at + left_row[:, None] * height, is_row[:, None], other=0.0)
        right_tile = tl.load(right_at + right_row[:, None] * width, is_row[:, None], other=0.0)
        total = tl.dot(tl.trans(left_tile), right_tile, total, input_precision="ieee")
    out_at = out + (expert.to(tl.int64) * height + line)[:, None] * width + column[None, :]
    is_own = (line < height)[:, None] & (column < width)[None, :]
    if ADDS:
        total += tl.load(out_at, is_own, other=0.0).to(tl.float32)
    tl.store(out_at, total.to(out.dtype.element_ty), is_own)


def largest_first(offsets: Int32[Tensor, "offsets"]) -> Int32[Tensor, "E"]:
    """Experts from most rows to fewest: what takes longest starts first, so that nothing is waited for at the end."""
    num_experts = offsets.shape[0] - 1
    order = torch.empty(num_experts, dtype=torch.int32, device=offsets.device)
    if num_experts:
        _largest_first[(triton.cdiv(num_experts, 64),)](offsets, order, num_experts, BLOCK=64, **SMALL_LAUNCH)
    return order


def weight_gradient(
    left: Float[Tensor, "A M"],
    right: Float[Tensor, "B N"],
    offsets: Int32[Tensor, "offsets"],
    *,
    rows: Int32[Tensor, "S"] | None = None,
    gathers: str = "",
    order: Int32[Tensor, "E"] | None = None,
    into: Float[Tensor, "E M N"] | None = None,
    config: Config | None = None,
) -> Float[Tensor, "E M N"] | None:
    """Of each expert, left rows transposed times right rows; zeros for an expert without rows.

    Args:
        offsets: first row of each expert.
        rows: token of each row, for the side that is one row per token.
        gathers: that side, `left` or `right`; none if empty.
        order: of the experts' programs, from `largest_first`; that of the experts if None.
        into: a gradient to add to; then nothing is returned.
        config: instead of the table's.
    """
    num_experts, height, width = offsets.shape[0] - 1, left.shape[1], right.shape[1]
    num_rows = left.shape[0] if rows is None else rows.shape[0]
    out = into
    if out is None:
        out = torch.empty(num_experts, height, width, dtype=left.dtype, device=left.device)
    per_expert = num_rows / max(1, num_experts)
    kernel: Kernel = "weight_gradient" if gathers else "grouped_weight_gradient"
    reads = (height, width)
    config = config or choose(kernel, left, rows_per_expert=per_expert, m=height, n=width, reads=reads)
    m_tiles, n_tiles = triton.cdiv(height, config.block_m), triton.cdiv(width, config.block_n)
    if num_experts * m_tiles * n_tiles:
        _weight_gradient[(num_experts * m_tiles * n_tiles,)](
            left, right, offsets if rows is None else rows, offsets, offsets if order is None else order, out,
            m_tiles, n_tiles, height, width,
            GATHERS_LEFT=gathers == "left", GATHERS_RIGHT=gathers == "right", ADDS=into is not None,
            IS_ORDERED=order is not None, **config.launch(),
        )  # fmt: skip
    return out if into is None else None

"""Gradients of the experts' matrices: sums over each expert's rows, of which only the GPU knows how many there are."""

from dataclasses import replace
from typing import no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int32
from torch import Tensor

from workbench_kernels.triton.configs import SMALL_LAUNCH, Config, Kernel, choose
from workbench_kernels.triton.plan import bins_of, tile_of

__all__ = ["both_weight_gradients", "largest_first", "weight_gradient"]

# Up to so many experts, and numbers of the gradients and of the scaled activations, both gradients of a layer are one
# launch: it saves two launches and a half-filled end, where these count beside the work. Beyond, the scaled activations
# are given back before the second gradient is made, and not every program looks for its expert. Derived, not measured.
MERGED_EXPERTS, MERGED_NUMBERS = 128, 2**25


@triton.jit
@no_type_check
def _counts_of(expert, offsets, num_experts):
    """Rows of each expert; of those past the last -1, so that they come behind all others."""
    is_there = expert < num_experts
    return tl.load(offsets + expert + 1, is_there, other=-1) - tl.load(offsets + expert, is_there, other=0)


@triton.jit
@no_type_check
def _ahead_of(expert, count, begin, offsets, num_experts, CHUNK: tl.constexpr):
    """How many of CHUNK experts from `begin` on come before each expert: those with more rows, or as many and first."""
    other = begin + tl.arange(0, CHUNK)
    theirs = _counts_of(other, offsets, num_experts)
    is_equal = theirs[None, :] == count[:, None]
    is_before = (theirs[None, :] > count[:, None]) | (is_equal & (other[None, :] < expert[:, None]))
    return tl.sum(is_before.to(tl.int32), 1)


@triton.jit
@no_type_check
def _largest_first(offsets, order, num_experts, BLOCK: tl.constexpr):
    """One program per block of experts: the place of each in the order from most rows to fewest."""
    expert = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    count = _counts_of(expert, offsets, num_experts)
    place = tl.zeros([BLOCK], tl.int32)
    for begin in range(0, num_experts, BLOCK):
        place += _ahead_of(expert, count, begin, offsets, num_experts, BLOCK)
    tl.store(order + place, expert, expert < num_experts)


@triton.jit
@no_type_check
def _expert_at(wanted, offsets, num_experts, BINS: tl.constexpr):
    """The expert at a place in the order from most rows to fewest."""
    expert = tl.arange(0, BINS)
    count = _counts_of(expert, offsets, num_experts)
    place = tl.zeros([BINS], tl.int32)
    # behind a loop that the GPU would run, Triton 3.9 reads nothing ahead in the loop over the rows.
    for begin in tl.static_range(0, BINS, 32):
        place += _ahead_of(expert, count, begin, offsets, num_experts, 32)
    return tl.sum(tl.where(place == wanted, expert, 0), 0)


@triton.jit
@no_type_check
def _walk(
    left, right, rows, begin, end, expert, out, m_tile, n_tile, height, width, gathers_left, gathers_right,
    GATHERS: tl.constexpr, ADDS: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """Makes BLOCK_M times BLOCK_N numbers of one expert's gradient from all of its rows."""
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
        left_row = row.to(tl.int64)
        right_row = left_row
        if GATHERS:
            token = tl.load(rows + row, is_row, other=0).to(tl.int64)
            left_row = tl.where(gathers_left, token, left_row)
            right_row = tl.where(gathers_right, token, right_row)
        left_tile = tl.load(left_at + left_row[:, None] * height, is_row[:, None], other=0.0)
        right_tile = tl.load(right_at + right_row[:, None] * width, is_row[:, None], other=0.0)
        total = tl.dot(tl.trans(left_tile), right_tile, total, input_precision="ieee")
    out_at = out + (expert.to(tl.int64) * height + line)[:, None] * width + column[None, :]
    is_own = (line < height)[:, None] & (column < width)[None, :]
    if ADDS:
        total += tl.load(out_at, is_own, other=0.0).to(tl.float32)
    tl.store(out_at, total.to(out.dtype.element_ty), is_own)


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
    _walk(
        left, right, rows, begin, end, expert, out, m_tile, n_tile, height, width, GATHERS_LEFT, GATHERS_RIGHT,
        GATHERS_LEFT | GATHERS_RIGHT, ADDS, BLOCK_M, BLOCK_N, BLOCK_K,
    )  # fmt: skip


@triton.jit
@no_type_check
def _both_weight_gradients(
    grad, scaled, grad_hidden, x, rows, offsets, grad_down, grad_gate_up, num_experts, width, features,
    ADDS: tl.constexpr, BINS: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, GROUP_M: tl.constexpr,
):  # fmt: skip
    """As above, for two gradients: of each expert, from most rows to fewest, the tiles of `down`, then of `gate_up`."""
    down_n_tiles, gate_up_n_tiles = tl.cdiv(features, BLOCK_N), tl.cdiv(width, BLOCK_N)
    down_m_tiles, gate_up_m_tiles = tl.cdiv(width, BLOCK_M), tl.cdiv(2 * features, BLOCK_M)
    down_tiles = down_m_tiles * down_n_tiles
    tiles = down_tiles + gate_up_m_tiles * gate_up_n_tiles
    expert = _expert_at(tl.program_id(0) // tiles, offsets, num_experts, BINS)
    begin, end = tl.load(offsets + expert), tl.load(offsets + expert + 1)
    if ADDS & (begin == end):
        return
    tile = tl.program_id(0) % tiles
    is_down = tile < down_tiles
    m_tile, n_tile = tile_of(
        tl.where(is_down, tile, tile - down_tiles),
        tl.where(is_down, down_m_tiles, gate_up_m_tiles),
        tl.where(is_down, down_n_tiles, gate_up_n_tiles),
        GROUP_M,
    )
    _walk(
        tl.where(is_down, grad, grad_hidden), tl.where(is_down, scaled, x), rows, begin, end, expert,
        tl.where(is_down, grad_down, grad_gate_up), m_tile, n_tile,
        tl.where(is_down, width, 2 * features), tl.where(is_down, features, width), is_down, is_down == 0,
        True, ADDS, BLOCK_M, BLOCK_N, BLOCK_K,
    )  # fmt: skip


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
    reads = (left, right, right if into is None else into)
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


def both_weight_gradients(
    grad: Float[Tensor, "T D"],
    scaled: Float[Tensor, "S F"],
    grad_hidden: Float[Tensor, "S F2"],
    x: Float[Tensor, "T D"],
    *,
    rows: Int32[Tensor, "S"],
    offsets: Int32[Tensor, "offsets"],
    into: tuple[Float[Tensor, "E F2 D"], Float[Tensor, "E D F"]] | None = None,
    config: Config | None = None,
) -> tuple[Float[Tensor, "E F2 D"] | None, Float[Tensor, "E D F"] | None] | None:
    """Gradients of `gate_up` and of `down` in one launch; None, and nothing done, where two do better.

    Args:
        grad: gradient of the layer's output.
        scaled: activations times weights.
        grad_hidden: gradient of the pre-activations.
        into: gradients to add to; then no tensors are returned.
        config: instead of the table's.
    """
    num_experts, (num_rows, features), width = offsets.shape[0] - 1, scaled.shape, x.shape[1]
    numbers = 3 * num_experts * width * features
    if numbers == 0 or num_experts > MERGED_EXPERTS or max(numbers, scaled.numel()) > MERGED_NUMBERS:
        return None
    config = config or _narrower(grad, scaled, grad_hidden, x, num_rows / num_experts, into)
    tiles = triton.cdiv(width, config.block_m) * triton.cdiv(features, config.block_n)
    tiles += triton.cdiv(2 * features, config.block_m) * triton.cdiv(width, config.block_n)
    made = into or (
        torch.empty(num_experts, 2 * features, width, dtype=x.dtype, device=x.device),
        torch.empty(num_experts, width, features, dtype=x.dtype, device=x.device),
    )
    _both_weight_gradients[(num_experts * tiles,)](
        grad, scaled, grad_hidden, x, rows, offsets, made[1], made[0], num_experts, width, features,
        ADDS=into is not None, BINS=bins_of(num_experts - 1), **config.launch(),
    )  # fmt: skip
    return made if into is None else (None, None)


def _narrower(
    grad: Tensor,
    scaled: Tensor,
    grad_hidden: Tensor,
    x: Tensor,
    rows_per_expert: float,
    into: tuple[Tensor, Tensor] | None,
) -> Config:
    """A configuration for both gradients: the shorter sides of the tiles that suit one and the other."""
    buffers = into or ()

    def suits(left: Tensor, right: Tensor) -> Config:
        reads, (m, n) = (left, right, *buffers), (left.shape[1], right.shape[1])
        return choose("weight_gradient", left, rows_per_expert=rows_per_expert, m=m, n=n, reads=reads)

    one, other = suits(grad, scaled), suits(grad_hidden, x)
    return replace(
        one,
        block_m=min(one.block_m, other.block_m),
        block_n=min(one.block_n, other.block_n),
        block_k=min(one.block_k, other.block_k),
        num_stages=min(one.num_stages, other.num_stages),
    )

"""Every expert's rows times its own matrix, either way round."""

from typing import no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int32
from torch import Tensor

from workbench_kernels.triton.configs import Config, Kernel, choose
from workbench_kernels.triton.plan import PER_BATCH, bins_of, locate, tile_bound, tile_of

__all__ = ["multiply"]


@triton.jit(do_not_specialize=PER_BATCH)
@no_type_check
def _multiply(
    rows_in, weight, offsets, out, num_rows, num_experts, m_tiles, width_in, width_out, in_stride, out_stride,
    ZEROS_REST: tl.constexpr, IS_EVEN: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, GROUP_M: tl.constexpr, BINS: tl.constexpr,
):  # fmt: skip
    """One program owns BLOCK_M rows of one expert and BLOCK_N columns of the result."""
    m_tile, n_tile = tile_of(tl.program_id(0), m_tiles, tl.cdiv(width_out, BLOCK_N), GROUP_M)
    expert, first, end = locate(offsets, m_tile, num_rows, num_experts, BLOCK_M, BINS)
    if first >= end:
        return
    row = (first + tl.arange(0, BLOCK_M)).to(tl.int64)
    column = n_tile * BLOCK_N + tl.arange(0, BLOCK_N)
    is_own = (row < end)[:, None] & (column < width_out)[None, :]
    out_at = out + row[:, None] * width_out + column[None, :]
    if expert >= num_experts:
        if ZEROS_REST:
            tl.store(out_at, tl.zeros([BLOCK_M, BLOCK_N], out.dtype.element_ty), is_own)
        return
    step = tl.arange(0, BLOCK_K)
    # past the end the last row and the first columns are read again: no mask in the loop, and none is written.
    # The remainder, unlike a minimum, still says that columns lie side by side. Within a tile 32 bits suffice.
    row_in = tl.minimum(tl.arange(0, BLOCK_M), end - 1 - first)
    column_in = tl.arange(0, BLOCK_N) % (width_out - n_tile * BLOCK_N)
    rows_at = row_in[:, None] * width_in + step[None, :]
    weight_at = column_in[None, :] * out_stride + step[:, None] * in_stride
    rows_in += first.to(tl.int64) * width_in
    weight += expert.to(tl.int64) * width_in * width_out + n_tile.to(tl.int64) * BLOCK_N * out_stride
    total = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    for done in range(0, width_in, BLOCK_K):
        if IS_EVEN:
            rows_tile, weight_tile = tl.load(rows_in + rows_at), tl.load(weight + weight_at)
        else:
            is_left = step < width_in - done
            rows_tile = tl.load(rows_in + rows_at, is_left[None, :], other=0.0)
            weight_tile = tl.load(weight + weight_at, is_left[:, None], other=0.0)
        total = tl.dot(rows_tile, weight_tile, total, input_precision="ieee")
        rows_in += BLOCK_K
        weight += BLOCK_K * in_stride
    tl.store(out_at, total.to(out.dtype.element_ty), is_own)


def multiply(
    rows: Float[Tensor, "N I"],
    weight: Float[Tensor, "E O P"],
    offsets: Int32[Tensor, "offsets"],
    *,
    transposes: bool = False,
    zeros_rest: bool = True,
    kernel: Kernel = "grouped_mm",
    config: Config | None = None,
) -> Float[Tensor, "N Q"]:
    """Rows times the matrix of their expert: `rows @ weight[e].T`, or `rows @ weight[e]` if `transposes`.

    Args:
        offsets: first row of each expert.
        zeros_rest: zeros in the rows past the last expert's, which otherwise stay as they are.
        kernel: whose configurations are used.
        config: instead of the table's.
    """
    (num_rows, width_in), num_experts = rows.shape, weight.shape[0]
    width_out = weight.shape[2 if transposes else 1]
    in_stride, out_stride = (width_out, 1) if transposes else (1, width_in)
    out = torch.empty(num_rows, width_out, dtype=rows.dtype, device=rows.device)
    per_expert = num_rows / max(1, num_experts)
    config = config or choose(kernel, rows, rows_per_expert=per_expert, n=width_out, k=width_in, reads=(rows, weight))
    m_tiles = tile_bound(num_rows, num_experts + zeros_rest, config.block_m)
    programs = m_tiles * triton.cdiv(width_out, config.block_n)
    if programs:
        _multiply[(programs,)](
            rows, weight, offsets, out, num_rows, num_experts, m_tiles, width_in, width_out, in_stride, out_stride,
            ZEROS_REST=zeros_rest, IS_EVEN=width_in % config.block_k == 0, BINS=bins_of(num_experts),
            **config.launch(),
        )  # fmt: skip
    return out

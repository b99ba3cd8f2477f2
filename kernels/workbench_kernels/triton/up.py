"""Up-projection: tokens gathered as they are read, gate and up in one tile, activation before the result is written."""

from typing import no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int32
from torch import Tensor

from workbench_kernels.triton.configs import Config, choose
from workbench_kernels.triton.plan import PER_BATCH, bins_of, locate, tile_bound, tile_of

__all__ = ["activate", "activate_with_slope", "halves", "up"]


@triton.jit
@no_type_check
def activate_with_slope(gate, ACTIVATION: tl.constexpr):
    """act(gate) and act'(gate), in float32."""
    tl.static_assert(ACTIVATION == "silu" or ACTIVATION == "gelu_tanh" or ACTIVATION == "gelu" or ACTIVATION == "relu")
    if ACTIVATION == "silu":
        share = tl.sigmoid(gate)
        value = gate * share
        slope = share + value * (1.0 - share)
    elif ACTIVATION == "gelu_tanh":
        # (1 + tanh(u)) / 2 is sigmoid(2u), which loses nothing where tanh(u) is near -1.
        twice = 1.5957691216057308 * gate * (1.0 + 0.044715 * gate * gate)
        share = tl.sigmoid(twice)
        value = gate * share
        slope = share + value * (1.0 - share) * 1.5957691216057308 * (1.0 + 0.134145 * gate * gate)
    elif ACTIVATION == "gelu":
        share = 0.5 + 0.5 * tl.erf(gate * 0.7071067811865476)
        value = gate * share
        slope = share + gate * 0.3989422804014327 * tl.exp(-0.5 * gate * gate)
    else:
        # this way round NaN stays NaN.
        value = tl.where(gate <= 0, 0.0, gate)
        slope = tl.where(gate <= 0, 0.0, 1.0)
    return value, slope


@triton.jit
@no_type_check
def activate(gate, ACTIVATION: tl.constexpr):
    """act(gate), in float32."""
    value, _ = activate_with_slope(gate, ACTIVATION)
    return value


@triton.jit
@no_type_check
def halves(tile, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr):
    """The left and the right columns of a tile: an end that works on one after the other needs half the registers."""
    return tl.split(tl.permute(tl.reshape(tile, [BLOCK_M, 2, BLOCK_N // 2]), [0, 2, 1]))


@triton.jit
@no_type_check
def _write(
    gate, up, row, end, column, features, hidden, activated,
    ACTIVATION: tl.constexpr, KEEPS_HIDDEN: tl.constexpr, KEEPS_ACTIVATED: tl.constexpr,
):  # fmt: skip
    is_own = (row < end)[:, None] & (column < features)[None, :]
    if KEEPS_HIDDEN:
        hidden_at = hidden + row[:, None] * 2 * features + column[None, :]
        tl.store(hidden_at, gate.to(hidden.dtype.element_ty), is_own)
        tl.store(hidden_at + features, up.to(hidden.dtype.element_ty), is_own)
    if KEEPS_ACTIVATED:
        product = activate(gate, ACTIVATION) * up
        activated_at = activated + row[:, None] * features + column[None, :]
        tl.store(activated_at, product.to(activated.dtype.element_ty), is_own)


@triton.jit(do_not_specialize=PER_BATCH)
@no_type_check
def _up(
    x, gate_up, rows, offsets, hidden, activated, num_rows, num_experts, m_tiles, width, features,
    ACTIVATION: tl.constexpr, KEEPS_HIDDEN: tl.constexpr, KEEPS_ACTIVATED: tl.constexpr, IS_EVEN: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, GROUP_M: tl.constexpr, BINS: tl.constexpr,
):  # fmt: skip
    """One program owns BLOCK_M rows of one expert and BLOCK_N columns of gate and of up."""
    m_tile, n_tile = tile_of(tl.program_id(0), m_tiles, tl.cdiv(features, BLOCK_N), GROUP_M)
    expert, first, end = locate(offsets, m_tile, num_rows, num_experts, BLOCK_M, BINS)
    if (first >= end) | (expert >= num_experts):
        return
    row = (first + tl.arange(0, BLOCK_M)).to(tl.int64)
    column = n_tile * BLOCK_N + tl.arange(0, BLOCK_N)
    step = tl.arange(0, BLOCK_K)
    # past the end the last row and the first columns are read again: no mask in the loop, and none is written.
    # Within a tile 32 bits suffice.
    token = tl.load(rows + tl.minimum(row, end - 1)).to(tl.int64)
    column_in = tl.arange(0, BLOCK_N) % (features - n_tile * BLOCK_N)
    gate_at = column_in[None, :] * width + step[:, None]
    gate_up += (expert.to(tl.int64) * 2 * features + n_tile * BLOCK_N) * width
    to_up = features * tl.cast(width, tl.int64)
    x_at = x + token[:, None] * width + step[None, :]
    gate = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    up = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    for done in range(0, width, BLOCK_K):
        if IS_EVEN:
            x_tile, gate_tile, up_tile = tl.load(x_at), tl.load(gate_up + gate_at), tl.load(gate_up + to_up + gate_at)
        else:
            is_left = step < width - done
            x_tile = tl.load(x_at, is_left[None, :], other=0.0)
            gate_tile = tl.load(gate_up + gate_at, is_left[:, None], other=0.0)
            up_tile = tl.load(gate_up + to_up + gate_at, is_left[:, None], other=0.0)
        gate = tl.dot(x_tile, gate_tile, gate, input_precision="ieee")
        up = tl.dot(x_tile, up_tile, up, input_precision="ieee")
        x_at += BLOCK_K
        gate_up += BLOCK_K
    if BLOCK_N < 128:
        _write(gate, up, row, end, column, features, hidden, activated, ACTIVATION, KEEPS_HIDDEN, KEEPS_ACTIVATED)
    else:
        column = n_tile * BLOCK_N + tl.arange(0, BLOCK_N // 2)
        gate_left, gate_right = halves(gate, BLOCK_M, BLOCK_N)
        up_left, up_right = halves(up, BLOCK_M, BLOCK_N)
        _write(
            gate_left, up_left, row, end, column, features, hidden, activated,
            ACTIVATION, KEEPS_HIDDEN, KEEPS_ACTIVATED,
        )  # fmt: skip
        _write(
            gate_right, up_right, row, end, column + BLOCK_N // 2, features, hidden, activated,
            ACTIVATION, KEEPS_HIDDEN, KEEPS_ACTIVATED,
        )  # fmt: skip


def up(
    x: Float[Tensor, "T D"],
    gate_up: Float[Tensor, "E F2 D"],
    rows: Int32[Tensor, "S"],
    offsets: Int32[Tensor, "offsets"],
    *,
    activation: str,
    keeps_hidden: bool,
    keeps_activated: bool,
    config: Config | None = None,
) -> tuple[Float[Tensor, "S F2"] | None, Float[Tensor, "S F"] | None]:
    """Pre-activations and activations of every row in use; the rows past the last expert's stay as they are.

    Args:
        rows: token of each row.
        offsets: first row of each expert.
        config: instead of the table's.
    """
    num_rows, (num_experts, twice, width) = rows.shape[0], gate_up.shape
    features = twice // 2
    hidden = torch.empty(num_rows, twice, dtype=x.dtype, device=x.device) if keeps_hidden else None
    activated = torch.empty(num_rows, features, dtype=x.dtype, device=x.device) if keeps_activated else None
    config = config or choose(
        "up", x, rows_per_expert=num_rows / max(1, num_experts), n=features, k=width, reads=(x, gate_up)
    )
    m_tiles = tile_bound(num_rows, num_experts, config.block_m)
    programs = m_tiles * triton.cdiv(features, config.block_n)
    if programs:
        _up[(programs,)](
            x, gate_up, rows, offsets, x if hidden is None else hidden, x if activated is None else activated,
            num_rows, num_experts, m_tiles, width, features,
            ACTIVATION=activation, KEEPS_HIDDEN=keeps_hidden, KEEPS_ACTIVATED=keeps_activated,
            IS_EVEN=width % config.block_k == 0, BINS=bins_of(num_experts), **config.launch(),
        )  # fmt: skip
    return hidden, activated

"""Who goes where on the device: a stable counting sort, and the tile that each program owns.

Nothing here asks the host for a number, so a CUDA graph may hold all of it. Programs own disjoint
blocks of slots; a slot's place depends on earlier slots alone, so the order is always the same.
"""

from typing import no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Int, Int32
from torch import Tensor

from workbench_kernels.triton.configs import SMALL_LAUNCH

__all__ = ["PER_BATCH", "bins_of", "locate", "sort_by_expert", "tile_bound", "tile_of"]

# Two sizes of block: a small one that fills the GPU when there are few slots, a large one that keeps the table of
# counts, which every program reads whole, short.
FEW_SLOTS = 16384
SMALL_BLOCK, LARGE_BLOCK = 128, 1024
# Up to so many slots times bins every program counts all slots itself. Derived, not measured: by the instructions of a
# histogram that takes at most two microseconds, about what a launch more would take.
COUNTED_BY_EACH = 2**20
# Arguments that change with the number of tokens. Where Triton specialised kernels for those that are 1, or a multiple
# of 16, batches of many lengths would wait for the compiler again and again.
PER_BATCH = ["num_slots", "num_blocks", "num_rows", "num_tokens", "m_tiles"]


# `no_type_check` keeps the signature checker of the tests from wrapping what Triton compiles from source.
@triton.jit
@no_type_check
def _bin_of(expert, slot, num_slots, num_experts):
    own = tl.load(expert + slot, mask=slot < num_slots, other=-1)
    is_present = (own >= 0) & (own < num_experts)
    return tl.where(is_present, own, num_experts).to(tl.int32), is_present


@triton.jit
@no_type_check
def _counts_of(expert, begin, end, num_experts, BLOCK: tl.constexpr, BINS: tl.constexpr):
    """How many slots from `begin` to `end` go to each expert."""
    count = tl.zeros([BINS], tl.int32)
    for done in range(begin, end, BLOCK):
        slot = done + tl.arange(0, BLOCK)
        bin_of_slot, _ = _bin_of(expert, slot, end, num_experts)
        count += tl.histogram(bin_of_slot, BINS, mask=slot < end)
    return count


@triton.jit(do_not_specialize=PER_BATCH)
@no_type_check
def _count(expert, counts, num_slots, num_experts, BLOCK: tl.constexpr, BINS: tl.constexpr):
    """One program per block of slots: how many go to each expert; the last bin counts those without."""
    block = tl.program_id(0).to(tl.int64)
    slot = block * BLOCK + tl.arange(0, BLOCK)
    bin_of_slot, _ = _bin_of(expert, slot, num_slots, num_experts)
    count = tl.histogram(bin_of_slot, BINS, mask=slot < num_slots)
    bins = tl.arange(0, BINS)
    tl.store(counts + block * (num_experts + 1) + bins, count, mask=bins <= num_experts)


@triton.jit
@no_type_check
def _first_rows(counts, block, num_blocks, num_experts, BLOCKS: tl.constexpr, BINS: tl.constexpr):
    """First row of each expert, and how many of its rows belong to earlier blocks."""
    bins = tl.arange(0, BINS)
    total = tl.zeros([BINS], tl.int32)
    earlier = tl.zeros([BINS], tl.int32)
    for begin in range(0, num_blocks, BLOCKS):
        part = begin + tl.arange(0, BLOCKS)
        is_there = (part[:, None] < num_blocks) & (bins[None, :] <= num_experts)
        count = tl.load(counts + part.to(tl.int64)[:, None] * (num_experts + 1) + bins[None, :], is_there, other=0)
        total += tl.sum(count, 0)
        earlier += tl.sum(tl.where(part[:, None] < block, count, 0), 0)
    return tl.cumsum(total, 0) - total, earlier


@triton.jit(do_not_specialize=PER_BATCH)
@no_type_check
def _place(
    expert, counts, rows, row_of, offsets, num_slots, num_experts, top_k, num_blocks, COUNTS: tl.constexpr,
    BLOCK: tl.constexpr, CHUNK: tl.constexpr, BLOCKS: tl.constexpr, BINS: tl.constexpr,
):  # fmt: skip
    """One program per block of slots: their rows. Slots without an expert fill the rows at the end.

    How many slots go to each expert is read from `counts`, or counted here COUNTS slots at a time.
    """
    block = tl.program_id(0)
    if COUNTS:
        earlier = _counts_of(expert, 0, block * BLOCK, num_experts, COUNTS, BINS)
        total = earlier + _counts_of(expert, block * BLOCK, num_slots, num_experts, COUNTS, BINS)
        first = tl.cumsum(total, 0) - total
    else:
        first, earlier = _first_rows(counts, block, num_blocks, num_experts, BLOCKS, BINS)
    bins = tl.arange(0, BINS)
    if block == 0:
        tl.store(offsets + bins, first, mask=bins <= num_experts)
    slot = block.to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    own, is_present = _bin_of(expert, slot, num_slots, num_experts)
    within = tl.arange(0, BLOCK)
    rank = tl.zeros([BLOCK], tl.int32)
    for begin in range(0, BLOCK, CHUNK):
        earlier_one = begin + tl.arange(0, CHUNK)
        other, _ = _bin_of(expert, block.to(tl.int64) * BLOCK + earlier_one, num_slots, num_experts)
        is_before = (own[:, None] == other[None, :]) & (earlier_one[None, :] < within[:, None])
        rank += tl.sum(is_before.to(tl.int32), 1)
    row = tl.gather(first + earlier, own, 0) + rank
    is_slot = slot < num_slots
    tl.store(rows + row, tl.where(is_present, slot // top_k, 0).to(tl.int32), mask=is_slot)
    tl.store(row_of + slot, tl.where(is_present, row, -1), mask=is_slot)


def bins_of(num_experts: int) -> int:
    """Length of the vectors that hold one number per expert and one for the rows of none."""
    return max(32, int(triton.next_power_of_2(num_experts + 1)))


def sort_by_expert(
    expert: Int[Tensor, "T K"], num_experts: int, *, block: int | None = None, counts_apart: bool | None = None
) -> tuple[Int32[Tensor, "S"], Int32[Tensor, "T K"], Int32[Tensor, "offsets"]]:
    """Token of each row, row of each slot, first row of each expert.

    Args:
        expert: expert of each slot; outside of 0 to `num_experts - 1` a slot gets no row.
        block: slots of one program, instead of those that suit their number.
        counts_apart: whether slots are counted in a launch of their own, instead of what suits their number.
    """
    num_slots = expert.numel()
    kind, device = torch.int32, expert.device
    if num_slots == 0:
        empty = torch.empty(0, dtype=kind, device=device)
        return empty, empty.view(expert.shape), torch.zeros(num_experts + 1, dtype=kind, device=device)
    bins = bins_of(num_experts)
    is_few = num_slots <= FEW_SLOTS
    block = block or (SMALL_BLOCK if is_few else LARGE_BLOCK)
    if counts_apart is None:
        counts_apart = not (is_few and num_slots * bins <= COUNTED_BY_EACH)
    num_blocks = triton.cdiv(num_slots, block)
    rows = torch.empty(num_slots, dtype=kind, device=device)
    row_of = torch.empty(expert.shape, dtype=kind, device=device)
    offsets = torch.empty(num_experts + 1, dtype=kind, device=device)
    counts = offsets
    if counts_apart:
        counts = torch.empty(num_blocks, num_experts + 1, dtype=kind, device=device)
        _count[(num_blocks,)](expert, counts, num_slots, num_experts, BLOCK=block, BINS=bins, **SMALL_LAUNCH)
    _place[(num_blocks,)](
        expert, counts, rows, row_of, offsets, num_slots, num_experts, expert.shape[1], num_blocks,
        COUNTS=0 if counts_apart else max(128, min(2048, 65536 // bins)),
        BLOCK=block, CHUNK=16, BLOCKS=max(1, min(32, 4096 // bins)), BINS=bins, **{**SMALL_LAUNCH, "num_warps": 8},
    )  # fmt: skip
    return rows, row_of, offsets


def tile_bound(num_rows: int, num_groups: int, block_m: int) -> int:
    """At least as many tiles of rows as any split of the rows over the groups needs."""
    return min(num_rows, num_rows // block_m + num_groups)


@triton.jit
@no_type_check
def locate(offsets, tile, num_rows, num_experts, BLOCK_M: tl.constexpr, BINS: tl.constexpr):
    """Expert, first row and end of the expert's rows of a tile; without a row where first >= end.

    The rows that belong to nobody come last, as those of expert `num_experts`. Every program finds its own
    tile: one read of the offsets costs less than another launch.
    """
    group = tl.arange(0, BINS)
    begin = tl.load(offsets + group, mask=group <= num_experts, other=num_rows)
    end = tl.load(offsets + group + 1, mask=group < num_experts, other=num_rows)
    tiles = (end - begin + BLOCK_M - 1) // BLOCK_M
    tiles_up_to = tl.cumsum(tiles, 0)
    expert = tl.sum((tiles_up_to <= tile).to(tl.int32), 0)
    is_own = group == expert
    # 0 for a tile past all rows, whose number times its length could leave 32 bits.
    tile_in_group = tl.sum(tl.where(is_own, tile - tiles_up_to + tiles, 0), 0)
    first = tl.sum(tl.where(is_own, begin, 0), 0) + tile_in_group * BLOCK_M
    return expert, first, tl.sum(tl.where(is_own, end, 0), 0)


@triton.jit
@no_type_check
def tile_of(program, m_tiles, n_tiles, GROUP_M: tl.constexpr):
    """Tile of rows and tile of columns of a program: GROUP_M tiles of rows share their weights in the L2 cache."""
    group = program // (GROUP_M * n_tiles)
    height = tl.minimum(m_tiles - group * GROUP_M, GROUP_M)
    within = program % (GROUP_M * n_tiles)
    return group * GROUP_M + within % height, within // height

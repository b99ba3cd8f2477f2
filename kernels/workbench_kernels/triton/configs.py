"""Tile sizes of each kernel, by the number of rows that an expert has on average.

The table is a file of numbers, so that a tuner may overwrite it; what does not fit a GPU or a matrix is cut down here.
"""

import json
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Literal

import torch
import triton
from torch import Tensor

__all__ = ["NO_GPU", "SMALL_LAUNCH", "Config", "Kernel", "Target", "choose", "entries", "shared_bytes"]

Kernel = Literal[
    "up",
    "down",
    "activation_backward",
    "tokens_backward",
    "weight_gradient",
    "grouped_mm",
    "grouped_weight_gradient",
]
Target = Literal["sm80", "sm90"]
# The table and the shared memory of one program [B] that are assumed where there is no GPU.
NO_GPU: tuple[Target, int] = ("sm90", 232448)
# A product of two tiles needs this many of each index.
SMALLEST_BLOCK = 16
# Lines of so many numbers, or a multiple, that begin at such an address [B] are read 16 bytes at a time.
ALIGNED = 16
# How the kernels without a configuration are run. Triton 3.9 warns where fusion is left to its default, and the
# default is going to change.
SMALL_LAUNCH = {"num_warps": 4, "enable_fp_fusion": True}


@dataclass(frozen=True)
class Config:
    """Tile of one program and how it is run.

    Args:
        block_m: rows; for weight gradients rows of the gradient.
        block_n: columns; the up-projection makes as many of gate and of up.
        block_k: summed over in one step.
        group_m: tiles of rows that are visited before the next tile of columns.
        num_warps: warps per program.
        num_stages: steps whose loads are in flight.
    """

    block_m: int
    block_n: int
    block_k: int
    group_m: int
    num_warps: int
    num_stages: int

    def launch(self) -> dict[str, int | bool]:
        """The keyword arguments of a launch."""
        return {
            "BLOCK_M": self.block_m,
            "BLOCK_N": self.block_n,
            "BLOCK_K": self.block_k,
            "GROUP_M": self.group_m,
            "num_warps": self.num_warps,
            "num_stages": self.num_stages,
            "enable_fp_fusion": True,
        }


@cache
def _table(target: Target) -> dict[str, dict[str, tuple[tuple[int | None, Config], ...]]]:
    def entry(words: dict[str, int | None]) -> tuple[int | None, Config]:
        limit = words.pop("rows_per_expert")
        return limit, Config(**{name: int(value or 0) for name, value in words.items()})

    kernels = json.loads(Path(__file__).with_name(f"configs_{target}.json").read_text())["kernels"]
    return {
        kernel: {bits: tuple(entry(dict(words)) for words in rows) for bits, rows in by_bits.items()}
        for kernel, by_bits in kernels.items()
    }


def entries(kernel: Kernel, bits: int, target: Target = "sm90") -> tuple[tuple[int | None, Config], ...]:
    """The rows of the table for numbers of 16 or 32 bits: up to how many rows per expert, and the configuration."""
    return _table(target)[kernel][str(bits)]


def shared_bytes(kernel: Kernel, config: Config, itemsize: int) -> int:
    """Shared memory of the tiles in flight [B]; what the end of a kernel needs reuses it."""
    columns = config.block_n * (2 if kernel == "up" else 1)
    # where rows are looked up in every step, half of the stages are spent on looking them up.
    buffers = (config.num_stages - 1) // 2 + 1 if kernel == "weight_gradient" else config.num_stages
    return buffers * (config.block_m + columns) * config.block_k * itemsize


@cache
def _limits(index: int) -> tuple[Target, int]:
    """The table that suits a GPU, and its shared memory per program [B]."""
    properties = torch.cuda.get_device_properties(index)
    return "sm90" if properties.major >= 9 else "sm80", int(properties.shared_memory_per_block_optin)  # type: ignore[attr-defined]


def _fit(kernel: Kernel, config: Config, itemsize: int, limit: int) -> Config:
    """Fewer stages, then a narrower tile, until it fits."""
    while shared_bytes(kernel, config, itemsize) > limit:
        if config.num_stages > 2:
            config = replace(config, num_stages=config.num_stages - 1)
        else:
            config = replace(config, block_n=config.block_n // 2)
    return config


def choose(
    kernel: Kernel,
    like: Tensor,
    *,
    rows_per_expert: float,
    n: int,
    m: int | None = None,
    k: int | None = None,
    reads: tuple[Tensor, ...] = (),
) -> Config:
    """The configuration of a launch.

    Args:
        like: a tensor of the dtype and the device in question.
        rows_per_expert: average number, known without asking the GPU.
        n: columns of the result.
        m: rows of the result, None where they are those of the experts.
        k: length of the sum, None where only the GPU knows it.
        reads: what is read and, with a buffer to add to, written.
    """
    target, limit_bytes = _limits(like.device.index) if like.is_cuda else NO_GPU
    rows = entries(kernel, 8 * like.itemsize, target)
    found = next(config for most, config in rows if most is None or rows_per_expert <= most)
    if not all(map(_is_aligned, reads)):
        found = _small(found)
    cut = replace(found, block_m=_cut(found.block_m, m), block_n=_cut(found.block_n, n), block_k=_cut(found.block_k, k))
    return _fit(kernel, cut, like.itemsize, limit_bytes)


def _is_aligned(tensor: Tensor) -> bool:
    """Every line begins where 16 bytes may be read at once: a part of a flat buffer may begin anywhere."""
    return tensor.shape[-1] % ALIGNED == 0 and tensor.data_ptr() % ALIGNED == 0


def _small(config: Config) -> Config:
    """Numbers that are read one by one each take an address, for which a large tile has no registers."""
    return replace(
        config,
        block_m=min(config.block_m, 64),
        block_n=min(config.block_n, 32),
        block_k=min(config.block_k, 32),
        num_stages=2,
    )


def _cut(block: int, size: int | None) -> int:
    return block if size is None else min(block, max(SMALLEST_BLOCK, triton.next_power_of_2(size)))

"""The dtype of the matrix products, and why."""

from contextlib import AbstractContextManager, nullcontext
from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch

__all__ = ["FULL_PRECISION", "Precision", "autocast", "bfloat16_unit", "precision_of"]


class Precision(NamedTuple):
    """A dtype and the reason for it in one sentence."""

    dtype: torch.dtype
    reason: str


FULL_PRECISION = Precision(torch.float32, "nothing else was asked for")


_CPUINFO = Path("/proc/cpuinfo")


@cache
def bfloat16_unit() -> str | None:
    """What multiplies bfloat16 faster than float32 on this CPU: `AMX tiles`, `AVX512-BF16 pairs`, None for nothing."""
    try:
        info = _CPUINFO.read_text()
    except OSError:
        return None
    if " amx_bf16" in info:
        return "AMX tiles"
    # on Intel's cores a step of pairs takes as long as two of float32.
    return "AVX512-BF16 pairs" if " avx512_bf16" in info and "AuthenticAMD" in info else None


def precision_of(device: torch.device | str, wanted: str = "auto") -> Precision:
    """The dtype of the products on a device; weights, norms, gates and losses stay float32.

    Args:
        wanted: `auto`, `float32` or `bfloat16`.
    """
    kind = torch.device(device).type
    if wanted != "auto":
        return Precision(getattr(torch, wanted), "asked for")
    if kind == "cuda":
        if torch.cuda.get_device_capability()[0] >= 8:
            return Precision(torch.bfloat16, "this GPU has bfloat16 tensor cores")
        return Precision(torch.float32, "this GPU has no bfloat16 tensor cores")
    unit = bfloat16_unit() if kind == "cpu" else None
    if unit is not None:
        return Precision(torch.bfloat16, f"this CPU multiplies bfloat16 in {unit}")
    return Precision(torch.float32, f"bfloat16 is not faster on this {kind}")


def autocast(device: torch.device, dtype: torch.dtype) -> AbstractContextManager[object]:
    """Products in the given dtype inside the block; nothing to do for float32."""
    return nullcontext() if dtype == torch.float32 else torch.autocast(device.type, dtype=dtype)

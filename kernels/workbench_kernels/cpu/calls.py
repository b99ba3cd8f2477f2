"""Calls of the library, and how it names dtypes."""

import ctypes

import torch

from workbench_kernels.cpu.library import kernels

__all__ = ["DTYPES", "run"]

DTYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}
_NO_MEMORY = "the kernels got no scratch memory; use fewer tokens at once"


def run(name: str, call: ctypes.Structure, is_backward: int) -> None:
    """One call of the library.

    Raises:
        MemoryError: there was no scratch memory.
    """
    loaded = kernels()
    if loaded.functions[name](ctypes.byref(call), is_backward, loaded.tier) != 1:
        raise MemoryError(_NO_MEMORY)

"""Memory that is used again: on a CPU, fresh pages cost more than what is written to them."""

import ctypes
import math
import threading
import weakref

import torch
from torch import Tensor

__all__ = ["buffer", "recycled"]

# below this, the allocator of the C library keeps freed memory by itself.
_WORTH_KEEPING_BYTES = 2**20
# what a training step needs in turn is more than what it needs at once: with less, it takes fresh pages in every step.
_KEPT_OVER_PEAK = 1.5


class _Kept(threading.local):
    def __init__(self) -> None:
        self.tensors: dict[tuple[str, torch.dtype], Tensor] = {}


class _Pool:
    """Blocks that tensors gave back; with those in use they stay within 1.5 times what was ever in use at once."""

    def __init__(self) -> None:
        self.idle: list[Tensor] = []
        self.used_bytes = self.peak_bytes = 0
        # reentrant: a collection inside the pool may give back a block.
        self.lock = threading.RLock()

    def take(self, size: int) -> Tensor:
        with self.lock:
            fits = [
                (block.numel(), i) for i, block in enumerate(self.idle) if size <= block.numel() <= size + size // 4
            ]
            with torch.inference_mode(False):
                block = self.idle.pop(min(fits)[1]) if fits else torch.empty(size, dtype=torch.uint8)
            self.used_bytes += block.numel()
            self.peak_bytes = max(self.peak_bytes, self.used_bytes)
        return block

    def give_back(self, block: Tensor) -> None:
        with self.lock:
            self.used_bytes -= block.numel()
            self.idle.append(block)
            while sum(kept.numel() for kept in self.idle) + self.used_bytes > _KEPT_OVER_PEAK * self.peak_bytes:
                self.idle.pop(0)


_KEPT, _POOL = _Kept(), _Pool()


def buffer(name: str, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """An uninitialised tensor of this thread; the next request of the same name may overwrite it.

    On other devices than the CPU it is a new tensor: their allocators keep memory themselves, by stream.
    """
    if device.type != "cpu":
        return torch.empty(shape, dtype=dtype, device=device)
    size = math.prod(shape)
    kept = _KEPT.tensors.get((name, dtype))
    if kept is None or kept.numel() < size:
        # a tensor born under inference_mode could not be written to outside of it.
        with torch.inference_mode(False):
            kept = _KEPT.tensors[name, dtype] = torch.empty(size, dtype=dtype)
    return kept[:size].view(shape)


def recycled(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """An uninitialised tensor of its own; its memory serves another one once nothing refers to it any more."""
    size = math.prod(shape) * dtype.itemsize
    if device.type != "cpu" or size < _WORTH_KEEPING_BYTES:
        return torch.empty(shape, dtype=dtype, device=device)
    block = _POOL.take(size)
    # the tensor's storage holds this object, and nothing else does: its end is the end of the last view.
    handle = (ctypes.c_char * size).from_address(block.data_ptr())
    weakref.finalize(handle, _POOL.give_back, block).atexit = False
    return torch.frombuffer(handle, dtype=dtype).view(shape)

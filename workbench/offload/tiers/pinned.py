"""Host memory for blocks of experts: aligned, touched only where it is used, pinned where a GPU copies from it."""

import mmap
import sys
import weakref
from collections.abc import Callable
from typing import final

import torch

__all__ = ["HostMemory"]

# private, so that pages that are given back are really gone; not reserved, because a model may have far more slots
# than this machine has memory, and only what fits the budget is ever touched. Python names the second from 3.13 on.
_FLAGS = (
    mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | vars(mmap).get("MAP_NORESERVE", 0x4000 if sys.platform == "linux" else 0)
)


@final
class HostMemory:
    """Anonymous pages of this machine.

    Pinned ones are registered with CUDA where they lie: an allocator of pinned memory may round sizes up to a power
    of two, and a budget must hold to the byte.

    Args:
        num_bytes: size [B].
        is_pinned: a GPU copies from and to it.

    Attributes:
        map: the pages.

    Raises:
        RuntimeError: CUDA refuses to pin so much.
    """

    def __init__(self, num_bytes: int, *, is_pinned: bool = False):
        self.is_pinned = is_pinned
        self.map = mmap.mmap(-1, max(num_bytes, 1), flags=_FLAGS)
        if is_pinned:
            runtime = vars(torch.cuda)["cudart"]()
            address = torch.frombuffer(self.map, dtype=torch.uint8).data_ptr()
            fault = int(runtime.cudaHostRegister(address, len(self.map), 0))
            if fault:
                raise RuntimeError(
                    f"CUDA could not pin {len(self.map)} B of host memory (error {fault}); take a smaller host budget"
                )
            # who still looks at the memory then keeps it, but not pinned.
            unregister: Callable[[int], object] = runtime.cudaHostUnregister
            weakref.finalize(self, unregister, address)

    def view(self, low: int = 0, high: int | None = None) -> memoryview:
        """The bytes from `low` to `high`."""
        return memoryview(self.map)[low:high]

    def give_back(self, low: int, high: int) -> None:
        """Let the system have the whole pages between two bytes; pinned memory stays."""
        low = -(-low // mmap.PAGESIZE) * mmap.PAGESIZE
        high = high // mmap.PAGESIZE * mmap.PAGESIZE
        if high > low and not self.is_pinned:
            self.map.madvise(mmap.MADV_DONTNEED, low, high - low)

"""The fast tier: slots for experts, stacked as the kernels want them."""

from collections.abc import Sequence
from typing import Any, final

import torch
from torch import Tensor

from workbench.offload.store.blocks import BlockShape
from workbench.offload.tiers.pinned import HostMemory

__all__ = ["SlotPool"]


@final
class SlotPool:
    """Memory for a number of experts, one stacked tensor for each part of a block.

    On a CPU the memory is anonymous pages, so that blocks are read straight into it and what is given back
    goes back to the system. On a GPU blocks arrive in pinned memory and are copied on a stream of their own.

    Args:
        shape: of a block.
        capacity: slots.
        partner: of slots on a CPU, the GPU that they are copied from and to: their memory is pinned.

    Attributes:
        tensors: one for each part, the first axis is the slot.
    """

    def __init__(self, shape: BlockShape, capacity: int, device: torch.device, *, partner: torch.device | None = None):
        self.shape, self.capacity, self.device = shape, capacity, device
        self._memory: list[HostMemory] = []
        gpu = next((one for one in (device, partner) if one is not None and one.type == "cuda"), None)
        tensors = []
        for part in shape.parts:
            size = (capacity, *part.shape)
            if device.type == "cpu":
                self._memory.append(HostMemory(capacity * part.num_bytes, is_pinned=gpu is not None))
                flat = torch.frombuffer(
                    self._memory[-1].map, dtype=part.torch_dtype, count=capacity * _length(part.shape)
                )
                tensors.append(flat.view(size))
            else:
                tensors.append(torch.empty(size, dtype=part.torch_dtype, device=device))
        self.tensors: tuple[Tensor, ...] = tuple(tensors)
        self._stream: Any = None if gpu is None else vars(torch.cuda)["Stream"](gpu)

    @property
    def num_bytes(self) -> int:
        """Memory that the slots take [B]."""
        return self.capacity * self.shape.num_bytes

    def memory(self, slot: int) -> list[memoryview]:
        """The memory of a slot, part by part; on a CPU only."""
        at = [slot * part.num_bytes for part in self.shape.parts]
        parts = zip(self._memory, self.shape.parts, at, strict=True)
        return [memory.view(low, low + part.num_bytes) for memory, part, low in parts]

    def put(self, slot: int, block: memoryview) -> None:
        """Fill a slot from a block; it is there when the call returns."""
        at = 0
        pieces = []
        for tensor, part in zip(self.tensors, self.shape.parts, strict=True):
            source = torch.frombuffer(block, dtype=part.torch_dtype, count=_length(part.shape), offset=at)
            pieces.append((tensor[slot], source.view(part.shape)))
            at += part.num_bytes
        self._fill(pieces)

    def copy(self, slot: int, other: "SlotPool", other_slot: int) -> None:
        """Fill a slot from a slot of another pool; it is there when the call returns."""
        self._fill([(to[slot], of[other_slot]) for to, of in zip(self.tensors, other.tensors, strict=True)])

    def _fill(self, pieces: Sequence[tuple[Tensor, Tensor]]) -> None:
        if self._stream is None:
            for target, source in pieces:
                target.copy_(source)
            return
        with torch.cuda.stream(self._stream):
            for target, source in pieces:
                target.copy_(source, non_blocking=True)
        self._stream.synchronize()

    def give_back(self, slots: Sequence[int]) -> None:
        """Let the system have the memory of slots that are not used now; they can be filled again."""
        for memory, part in zip(self._memory, self.shape.parts, strict=False):
            for slot in slots:
                memory.give_back(slot * part.num_bytes, (slot + 1) * part.num_bytes)


def _length(shape: Sequence[int]) -> int:
    return int(torch.Size(shape).numel())

"""How one expert lies in memory and on disk: its tensors one after the other, in a block of fixed size."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor

from workbench.core.check import one_of

__all__ = ["ALIGNMENT", "BlockShape", "Part", "parts_of"]

ALIGNMENT = 4096
"""Blocks begin at multiples of it [B]: what reading past the page cache needs on every common disk."""

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "float64": torch.float64}
_DTYPES |= {"int8": torch.int8, "uint8": torch.uint8}


@dataclass(frozen=True)
class Part:
    """One tensor of an expert.

    Args:
        shape: without the axis of experts.
        dtype: as torch calls it, for instance `bfloat16`.
    """

    shape: tuple[int, ...]
    dtype: str

    def __post_init__(self) -> None:
        one_of("dtype of an expert", self.dtype, _DTYPES)

    @property
    def torch_dtype(self) -> torch.dtype:
        """The dtype."""
        return _DTYPES[self.dtype]

    @property
    def num_bytes(self) -> int:
        """Size [B]."""
        return prod(self.shape) * self.torch_dtype.itemsize


@dataclass(frozen=True)
class BlockShape:
    """The tensors of one expert, or of one page of it, in order.

    Args:
        parts: gate and up, then down, for a SwiGLU expert as it is; codes and scales of each in other formats.
    """

    parts: tuple[Part, ...]

    @property
    def num_bytes(self) -> int:
        """Bytes of one expert's weights."""
        return sum(part.num_bytes for part in self.parts)

    @property
    def stride(self) -> int:
        """Bytes from one block to the next on disk."""
        return -(-self.num_bytes // ALIGNMENT) * ALIGNMENT

    @property
    def is_aligned(self) -> bool:
        """Whether every tensor can be read straight to where it is used, without a buffer between."""
        return all(part.num_bytes % ALIGNMENT == 0 for part in self.parts)

    def to_json(self) -> list[dict[str, Any]]:
        """The parts as plain data."""
        return [{"shape": list(part.shape), "dtype": part.dtype} for part in self.parts]

    @classmethod
    def from_json(cls, data: Iterable[dict[str, Any]]) -> "BlockShape":
        """What `to_json` wrote."""
        return cls(tuple(Part(tuple(int(n) for n in part["shape"]), str(part["dtype"])) for part in data))

    def check(self, tensors: Sequence[Tensor]) -> None:
        """Nothing, if these are tensors of this shape.

        Raises:
            ValueError: they are not.
        """
        got = parts_of(tensors)
        if got.parts != self.parts:
            raise ValueError(
                f"every expert must have the tensors {_words(self)}, got {_words(got)}; "
                "experts of different shapes cannot share slots"
            )

    def bytes_of(self, tensors: Sequence[Tensor]) -> bytearray:
        """One expert as it lies on disk, padding included.

        Raises:
            ValueError: tensors of another shape or dtype.
        """
        self.check(tensors)
        block = bytearray(self.stride)
        at = 0
        for tensor, part in zip(tensors, self.parts, strict=True):
            flat = tensor.detach().to("cpu").contiguous().view(-1).view(torch.uint8)
            torch.frombuffer(block, dtype=torch.uint8, count=part.num_bytes, offset=at).copy_(flat)
            at += part.num_bytes
        return block


def parts_of(tensors: Sequence[Tensor]) -> BlockShape:
    """The shape of an expert that consists of these tensors."""
    return BlockShape(tuple(Part(tuple(t.shape), str(t.dtype).removeprefix("torch.")) for t in tensors))


def _words(shape: BlockShape) -> str:
    return ", ".join(f"{part.dtype} {list(part.shape)}" for part in shape.parts)

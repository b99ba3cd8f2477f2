"""Products of the PyTorch engine: in which dtype, over which rows at once, and where gradients of matrices go."""

from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from workbench_kernels.workspace import buffer, recycled

__all__ = ["Part", "WeightGradient", "parts_of", "product", "product_dtype", "sum_dtype"]

# pre-activations of one part, in elements: what the products of a part reuse stays in a core's cache.
_PART_ELEMENTS = 2**20
_LEAST_ROWS = 256


class Part(NamedTuple):
    """Rows of one expert that are worked on together."""

    rows: slice
    is_first: bool
    is_last: bool

    @property
    def size(self) -> int:
        """How many rows."""
        return int(self.rows.stop - self.rows.start)


def sum_dtype(tensor: Tensor) -> torch.dtype:
    """Dtype of sums and of everything between two products."""
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32


def product_dtype(tensor: Tensor) -> torch.dtype:
    """Dtype in which products of such tensors are fastest and exact enough."""
    # a CPU without tiles multiplies half precision several times slower than float32.
    is_half = tensor.dtype in (torch.bfloat16, torch.float16)
    if is_half and tensor.device.type == "cpu":
        has_tiles = tensor.dtype == torch.bfloat16 and torch.cpu._is_amx_tile_supported()
        return torch.bfloat16 if has_tiles else torch.float32
    return tensor.dtype


def product(left: Tensor, right: Tensor, *, out: Tensor) -> Tensor:
    """The matrix product, in the dtype of its factors, written in that of `out`."""
    if left.dtype == out.dtype:
        return torch.mm(left, right, out=out)
    if left.device.type == "cuda" and out.dtype == torch.float32:
        return torch.mm(left, right, out_dtype=torch.float32, out=out)
    narrow = buffer("narrow", tuple(out.shape), left.dtype, out.device)
    return out.copy_(torch.mm(left, right, out=narrow))


def parts_of(bounds: list[int], stacked: Tensor) -> Iterator[tuple[int, list[Part]]]:
    """Every expert that has rows, with its rows in parts that fit into a CPU's cache."""
    limit = max(_LEAST_ROWS, _PART_ELEMENTS // max(stacked.shape[1], 1)) if stacked.device.type == "cpu" else 2**31
    for expert, (low, high) in enumerate(pairwise(bounds)):
        starts = range(low, high, limit)
        if low < high:
            yield (
                expert,
                [Part(slice(at, min(at + limit, high)), at == low, at + limit >= high) for at in starts],
            )


class WeightGradient:
    """Gradient of stacked matrices: each expert's is written once, or added to what is there."""

    def __init__(self, name: str, stacked: Tensor, into: Tensor | None, bounds: list[int]):
        # two gradients of one expert grow side by side, each in its own buffer.
        self.total = f"total of {name}"
        self.adds = into is not None
        self.target = _like(stacked) if into is None else into
        if not self.adds:
            # every expert with rows is written whole, so only the others need zeros.
            for expert, (low, high) in enumerate(pairwise(bounds)):
                if low == high:
                    self.target[expert].zero_()

    def add(self, expert: int, part: Part, left: Tensor, right: Tensor) -> None:
        """Count in the product of one part of an expert; parts come in order."""
        place = self.target[expert]
        if place.dtype == left.dtype and part.is_first and part.is_last and not self.adds:
            torch.mm(left, right, out=place)
        elif place.dtype == left.dtype == sum_dtype(place):
            place.addmm_(left, right, beta=0 if part.is_first and not self.adds else 1)
        else:
            self._add_exactly(place, part, left, right)

    def _add_exactly(self, place: Tensor, part: Part, left: Tensor, right: Tensor) -> None:
        total = buffer(self.total, place.shape, sum_dtype(place), place.device)
        if part.is_first:
            product(left, right, out=total)
        elif left.dtype == total.dtype:
            total.addmm_(left, right)
        else:
            total.add_(torch.mm(left, right))
        if part.is_last:
            place.add_(total) if self.adds else place.copy_(total)


def _like(stacked: Tensor) -> Tensor:
    if stacked.is_contiguous():
        return recycled(tuple(stacked.shape), stacked.dtype, stacked.device)
    return torch.empty_like(stacked)

"""A collection of the expert activations of past requests, and which of them the running request is like."""

from math import sqrt
from typing import Literal

import numpy as np
from numpy.typing import NDArray

__all__ = ["MatrixCollection"]


class MatrixCollection:
    """Activation matrices [layer, expert] of past requests; a new one replaces that which is most like it.

    Slots that were never filled take no part. Of equally near matrices that in the lowest slot is taken.

    Args:
        capacity: matrices that are kept.
        num_layers: rows of a matrix.
        num_experts: columns of a matrix.
        distance: `row`: one minus the mean cosine of the rows so far; `flat`: one minus the cosine of the
            whole matrices, unfinished rows being zero.
    """

    def __init__(self, capacity: int, num_layers: int, num_experts: int, *, distance: Literal["row", "flat"]):
        if capacity < 1:
            raise ValueError(f"the collection needs room for at least one matrix, got {capacity}")
        if distance not in ("row", "flat"):
            raise ValueError(f"distance must be 'row' or 'flat', got {distance!r}")
        self.capacity = capacity
        self._by_row = distance == "row"
        # layer first: the rows of all matrices for one layer lie together.
        self._unit = np.zeros((num_layers, capacity, num_experts))
        self._share = np.zeros((capacity, num_layers, num_experts))
        self._likeness = np.zeros(capacity)
        self._count = 0
        # the part of each that is filled.
        self._known = self._likeness[:0]
        self._units = [unit[:0] for unit in self._unit]

    def __len__(self) -> int:
        return self._count

    def begin_pass(self) -> None:
        """Nothing is known of the running pass."""
        self._known.fill(0.0)

    def observe(self, layer: int, row: NDArray[np.float64]) -> None:
        """A layer of the running pass has sent so many tokens to each expert."""
        if not self._count:
            return
        if self._by_row:
            row = row / (sqrt(row.dot(row)) or 1.0)
        known = self._known
        known += self._units[layer].dot(row)

    def nearest(self) -> int | None:
        """The slot of the matrix that the running pass is most like, None if there is none."""
        return int(self._known.argmax()) if self._count else None

    def shares(self, slot: int) -> NDArray[np.float64]:
        """What part of a layer's tokens each expert got in a matrix; 0 for a layer without any."""
        share: NDArray[np.float64] = self._share[slot]
        return share

    def insert(self, matrix: NDArray[np.float64]) -> int:
        """Keep the matrix of a request that has ended; the slot that it got."""
        unit = self._scaled(matrix)
        if self._count < self.capacity:
            slot = self._count
            self._count += 1
            self._known, self._units = self._likeness[: self._count], [unit[: self._count] for unit in self._unit]
        else:
            slot = int(np.einsum("lpe,le->p", self._unit, unit).argmax())
        self._unit[:, slot] = unit
        total = matrix.sum(1, keepdims=True)
        self._share[slot] = np.divide(matrix, total, out=np.zeros_like(matrix), where=total > 0)
        self._known.fill(0.0)
        return slot

    def _scaled(self, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
        axis = 1 if self._by_row else None
        norm = np.sqrt((matrix**2).sum(axis, keepdims=True))
        unit: NDArray[np.float64] = np.divide(matrix, norm, out=np.zeros_like(matrix), where=norm > 0)
        return unit

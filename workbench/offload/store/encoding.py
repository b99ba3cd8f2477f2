"""What a store remembers of how its experts were written."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workbench.core.spec import Spec
from workbench.offload.store.blocks import BlockShape

__all__ = ["EXACT", "Encoding"]

EXACT = Spec("exact")
"""The format of experts as they are."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Encoding:
    """The format of a store's experts.

    Args:
        format: with its arguments; see `FORMATS`.
        levels: pages of an expert.
        dense: the tensors of an expert as they compute.
        left: squared norm of what is left of every expert after 0, 1, 2, ... pages, experts by levels + 1;
            zeros for experts as they are.
        calibration: names the text by whose inputs experts were written, and their norms weighed; None for none.
        tokens: of that text that every expert computed, layer after layer: those of few are little known.
    """

    format: Spec
    levels: int
    dense: BlockShape
    left: NDArray[np.float64]
    calibration: str | None = None
    tokens: tuple[int, ...] | None = None

    @property
    def name(self) -> str:
        """Format and calibration, in words."""
        if not self.tokens:
            return str(self.format)
        return f"{self.format} calibrated on text {self.calibration} ({min(self.tokens)} to {max(self.tokens)} tokens)"

    def to_json(self) -> dict[str, Any]:
        """The encoding as plain data."""
        plain = {
            "format": self.format.to_json(),
            "levels": self.levels,
            "dense": self.dense.to_json(),
            "left": self.left.tolist(),
        }
        if self.calibration is None or self.tokens is None:
            return plain
        return {**plain, "calibration": {"text": self.calibration, "tokens": list(self.tokens)}}

    @classmethod
    def from_json(cls, data: Mapping[str, Any] | None, shape: BlockShape, num_experts: int) -> "Encoding":
        """What `to_json` wrote; a store that does not say holds experts as they are.

        Args:
            shape: of a page.

        Raises:
            ValueError: norms of another number of experts or levels.
        """
        if data is None:
            return cls(format=EXACT, levels=1, dense=shape, left=np.zeros((num_experts, 2)))
        left, levels = np.asarray(data["left"], np.float64), int(data["levels"])
        if left.shape != (num_experts, levels + 1):
            raise ValueError(f"{num_experts} experts of {levels} levels need as many norms, got {left.shape}")
        dense, format = BlockShape.from_json(data["dense"]), Spec.from_json(data["format"])
        found = data.get("calibration")
        if found is None:
            return cls(format=format, levels=levels, dense=dense, left=left)
        text, tokens = str(found["text"]), tuple(int(count) for count in found["tokens"])
        if len(tokens) != num_experts:
            raise ValueError(f"{num_experts} experts need as many numbers of tokens, got {len(tokens)}")
        return cls(format=format, levels=levels, dense=dense, left=left, calibration=text, tokens=tokens)

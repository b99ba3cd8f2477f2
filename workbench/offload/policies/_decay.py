"""Sums that fade."""

from math import inf

__all__ = ["FadingSums"]

_LARGEST_WEIGHT = 2.0**512


class FadingSums:
    """Sums in which what was added counts half after a number of steps; only what is added to costs time.

    Instead of fading the old, the new weighs more. So `values` keep their order and their ratios, and
    `values / weight` are the sums.

    Args:
        number: of sums.
        half_life: steps [1]; infinite for plain sums.

    Attributes:
        values: of the sums, in units of the first step; add `weight` for 1.
        weight: of what is added now.
    """

    def __init__(self, number: int, half_life: float):
        if half_life <= 0:
            raise ValueError(f"half_life must be above 0, got {half_life}")
        self.values = [0.0] * number
        self.weight = 1.0
        self._half_life = half_life

    def advance(self, steps: int = 1) -> bool:
        """Let time pass; whether the unit has changed, so that all values are smaller than before."""
        if self._half_life == inf:
            return False
        self.weight *= 2.0 ** (steps / self._half_life)
        if self.weight < _LARGEST_WEIGHT:
            return False
        self.values[:] = [value / self.weight for value in self.values]
        self.weight = 1.0
        return True

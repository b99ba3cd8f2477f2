"""How much two routings of the same tokens have in common."""

from typing import Literal, get_args

import numpy as np
from jaxtyping import Float, Int

from workbench.core.check import one_of

Unit = Literal["assignment", "first", "set"]


def overlap(
    first: Int[np.ndarray, "L T K"], second: Int[np.ndarray, "L T J"], *, unit: Unit
) -> tuple[Float[np.ndarray, "L T"], Float[np.ndarray, "L T"]]:
    """What a token has in both, and what it could have: their sums' ratio is the agreement.

    Args:
        first: chosen expert, -1 where a slot is empty.
        second: the same under the other router.
        unit: `assignment` counts experts, against the larger of the two sets; `set` counts tokens
            whose sets are equal; for `first` give one slot per token.
    """
    one_of("unit", unit, get_args(Unit))
    layers, tokens = first.shape[:2]
    shared, most = np.zeros((layers, tokens)), np.zeros((layers, tokens))
    for layer, (one, two) in enumerate(zip(first, second, strict=True)):
        same = (one[:, :, None] == two[:, None, :]) & (one >= 0)[:, :, None]
        # the smaller side: an expert that one of them names twice is shared once.
        shared[layer] = np.minimum(same.any(2).sum(1), same.any(1).sum(1))
        most[layer] = np.maximum((one >= 0).sum(1), (two >= 0).sum(1))
    if unit == "set":
        some = most > 0
        return ((shared == most) & some).astype(float), some.astype(float)
    return shared, most


def share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """One over the other, NaN where there is nothing to compare."""
    return np.asarray(np.where(whole > 0, part, np.nan) / np.where(whole > 0, whole, 1.0))

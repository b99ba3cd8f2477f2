"""Which differences stand out of the noise: paired tests over seeds."""

from itertools import combinations

import numpy as np
from jaxtyping import Float
from scipy import stats

__all__ = ["holm", "paired_p_values"]


def paired_p_values(loss: Float[np.ndarray, "G O"]) -> Float[np.ndarray, "G G"]:
    """Two-sided p-value of a paired t-test between every two rows; NaN on the diagonal and with fewer than two pairs.

    Rows are contenders, columns are seeds that share their data order. Differences that are the same for
    every seed have no spread to test against: p is 0 for a difference and 1 for none.

    Args:
        loss: one value per contender and seed; a pair with a NaN is left out.
    """
    count = len(loss)
    found = np.full((count, count), np.nan)
    for first, second in combinations(range(count), 2):
        difference = loss[first] - loss[second]
        difference = difference[np.isfinite(difference)]
        if len(difference) < 2:
            continue
        if np.ptp(difference) == 0:
            p = float(difference[0] == 0)
        else:
            p = float(stats.ttest_1samp(difference, 0.0).pvalue)
        found[first, second] = found[second, first] = p
    return found


def holm(p_values: Float[np.ndarray, "G"]) -> Float[np.ndarray, "G"]:
    """P-values corrected for asking so many questions at once; NaN stays NaN and does not count.

    Source: Holm, 1979, a sequentially rejective multiple test procedure.
    """
    corrected = np.full(len(p_values), np.nan)
    known = np.flatnonzero(np.isfinite(p_values))
    order = known[np.argsort(p_values[known], kind="stable")]
    highest = 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, float(p_values[index]) * (len(order) - rank)))
        corrected[index] = highest
    return corrected

"""How well one fixed set of experts stands in for a router over a window of tokens."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.stats import binom


class Segment(NamedTuple):
    """The best fixed set over all windows.

    Args:
        srp: its F1 score against the router [1].
        alpha: uses in a window from which an expert belongs to it.
        rho: experts that it holds per expert that is used [1]; NaN where none is.
    """

    srp: Float[np.ndarray, "..."]
    alpha: Int[np.ndarray, "..."]
    rho: Float[np.ndarray, "..."]


def best_segment(histogram: Float[np.ndarray, "... counts"]) -> Segment:
    """The best fixed set, from how many pairs of an expert and a window have 0, 1, ... m uses.

    Source: arXiv 2505.16056 v4, sections 2 and appendix C: the optimum turns on all pairs of at least
    `ceil(m / 2 * F1)` uses.
    """
    window = histogram.shape[-1] - 1
    uses = np.arange(window + 1)
    all_uses = (histogram * uses).sum(-1)
    found = (histogram * uses)[..., ::-1].cumsum(-1)[..., ::-1]
    held = window * histogram[..., ::-1].cumsum(-1)[..., ::-1]
    is_used = all_uses > 0
    whole = np.where(is_used, all_uses, 1.0)
    srp = np.where(is_used, (2 * found / (held + whole[..., None])).max(-1), 0.0)
    alpha = np.ceil(window / 2 * srp - 1e-9).astype(np.int64)
    at_alpha = np.take_along_axis(held, alpha[..., None], -1)[..., 0]
    return Segment(srp, alpha, np.where(is_used, at_alpha / whole, np.nan))


def window_counts(active: Int[np.ndarray, "S Z"], window: int) -> Int[np.ndarray, "windows Z"]:
    """Uses of every expert in every window of so many tokens; none if the sequence is shorter."""
    total = np.zeros((len(active) + 1, active.shape[1]), np.int32)
    np.cumsum(active, axis=0, out=total[1:])
    return total[window:] - total[: max(len(total) - window, 0)]


def window_histogram(expert: Int[np.ndarray, "S K"], num_experts: int, window: int) -> Int[np.ndarray, "Z counts"]:
    """For every expert, the number of windows of a sequence in which it is used 0, 1, ... m times."""
    active = np.zeros((len(expert), num_experts), np.int32)
    token, slot = np.nonzero(expert >= 0)
    active[token, expert[token, slot]] = 1
    counts = window_counts(active, window) + np.arange(num_experts) * (window + 1)
    return np.bincount(counts.ravel(), minlength=num_experts * (window + 1)).reshape(num_experts, window + 1)


def histogram_by_chance(rate: Float[np.ndarray, "..."], window: int) -> Float[np.ndarray, "... counts"]:
    """Share of the windows in which an expert that tokens use independently, at this rate, is used 0 to m times."""
    return np.asarray(binom.pmf(np.arange(window + 1), window, np.asarray(rate)[..., None]))

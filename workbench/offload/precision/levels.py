"""How many pages each expert is read from: more for those that are used more and that lose more without them."""

import heapq
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from workbench.offload.requests import Requests

__all__ = ["share_levels", "usage_of"]


def share_levels(left: NDArray[np.float64], mean_levels: float, *, usage: Sequence[float] | None = None) -> list[int]:
    """Pages of every expert, one at least, that take away the most error for the bytes; always the same ones.

    Step after step the page with the largest gain is added: the share of use of its expert, times the squared norm
    that it takes away from what is left. Pages are of equal size, so gain per page is gain per byte. Pages without
    a gain are not added, so an expert that nobody uses keeps one page.

    In a calibrated store the norms are of weights scaled by their inputs on the text. BitStack instead reads the text
    anew for each expert at each level and goes by the perplexity: thousands of runs for a model of many experts.

    Args:
        left: squared norm of what is left of every expert after 0, 1, 2, ... pages: experts by levels + 1.
        mean_levels: pages per expert, on average [1].
        usage: how often each expert is used, in any unit; None for alike.

    Raises:
        ValueError: numbers of use that are not one for each expert, or below 0.
    """
    experts, most = left.shape[0], left.shape[1] - 1
    weight = np.ones(experts) if usage is None else np.asarray(usage, np.float64)
    if weight.shape != (experts,) or not (weight >= 0).all():
        raise ValueError(
            f"usage needs one number of 0 or more for each of {experts} experts, layer after layer, got "
            f"{weight.size} with a least of {weight.min(initial=0):g}"
        )
    gain = weight[:, None] * (left[:, :-1] - left[:, 1:])
    levels = [1] * experts
    # of equal gains the lower level comes first: where all gains are equal everybody gets the same.
    steps = [(-gain[expert, 1], 1, expert) for expert in range(experts) if most > 1 and gain[expert, 1] > 0]
    heapq.heapify(steps)
    room = int(mean_levels * experts + 1e-9) - experts
    while steps and room > 0:
        _, level, expert = heapq.heappop(steps)
        levels[expert], room, following = level + 1, room - 1, level + 1
        if following < most and gain[expert, following] > 0:
            heapq.heappush(steps, (-gain[expert, following], following, expert))
    return levels


def usage_of(requests: Requests) -> tuple[int, ...]:
    """Tokens that every expert of a recording computed, layer after layer: what `OffloadConfig.usage` takes."""
    return tuple(np.bincount(requests.page, weights=requests.count, minlength=requests.num_pages).astype(int).tolist())

"""How to share slots among the layers when each has a cache of its own."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["LayerBudget", "even_split", "share_slots"]


@dataclass(frozen=True, kw_only=True)
class LayerBudget:
    """Slots of each layer, and what they save against giving all layers alike.

    Args:
        slots: of each layer, as suggested.
        even: of each layer, as even as whole slots allow.
        misses: with `slots`, counted.
        even_misses: with `even`, counted.
        miss_seconds: that a miss makes the computation wait [s].
    """

    slots: tuple[int, ...]
    even: tuple[int, ...]
    misses: int
    even_misses: int
    miss_seconds: float

    @property
    def saved_seconds(self) -> float:
        """Stall that the suggestion saves over all requests, if nothing overlaps [s]."""
        return (self.even_misses - self.misses) * self.miss_seconds

    @property
    def saved_share(self) -> float:
        """Share of the misses of the even split that the suggestion saves [1]; 0 if there are none."""
        return (self.even_misses - self.misses) / self.even_misses if self.even_misses else 0.0


def share_slots(misses: NDArray[np.int64], total: int, *, least: int, miss_seconds: float) -> LayerBudget:
    """The split that takes, again and again, the step with the most misses saved per slot.

    A step may be several slots of one layer at once, so that a flat piece of a curve does not stop it. Slots that
    save nothing are not given out. Where the steps come out worse than the even split, the even split is suggested.

    Args:
        misses: of each layer with 1, 2, ... slots, as counted: layer by capacity.
        total: slots to share.
        least: slots that every layer gets, so that a token's experts fit.
        miss_seconds: that a miss makes the computation wait [s].

    Raises:
        ValueError: fewer slots than the least of all layers; the message states the minimum.
    """
    layers, most = misses.shape
    least = min(least, most)
    if total < layers * least:
        raise ValueError(
            f"{layers} layers with at least {least} slots each need {layers * least} slots, got {total}; "
            "give a larger budget"
        )
    slots = np.full(layers, least)
    while (left := total - int(slots.sum())) > 0:
        step = _best_step(misses, slots, left)
        if step is None:
            break
        slots[step[0]] += step[1]
    even = even_split(total, layers, most)
    rows = np.arange(layers)
    found, plain = int(misses[rows, slots - 1].sum()), int(misses[rows, np.array(even) - 1].sum())
    chosen = tuple(slots.tolist()) if found < plain else even
    return LayerBudget(slots=chosen, even=even, misses=min(found, plain), even_misses=plain, miss_seconds=miss_seconds)


def even_split(total: int, layers: int, most: int) -> tuple[int, ...]:
    """Slots of each layer as even as whole slots allow, the first layers one more; none over `most`."""
    each, more = divmod(total, layers)
    return tuple(min(each + (layer < more), most) for layer in range(layers))


def _best_step(misses: NDArray[np.int64], slots: NDArray[np.int64], left: int) -> tuple[int, int] | None:
    """Layer and number of slots that save the most misses per slot; None if nothing is saved."""
    most = misses.shape[1]
    size = np.arange(1, most + 1) - slots[:, None]
    held = np.take_along_axis(misses, slots[:, None] - 1, 1)
    is_step = (size > 0) & (size <= left)
    rate = np.where(is_step, (held - misses) / np.maximum(size, 1), -np.inf)
    layer, place = np.unravel_index(int(rate.argmax()), rate.shape)
    return (int(layer), int(size[layer, place])) if rate[layer, place] > 0 else None

"""The one bit that a perfect adviser would give with every request."""

from random import Random

import numpy as np
from numpy.typing import NDArray

from workbench.offload.policies._future import next_sets
from workbench.offload.replay.counters import cache_events
from workbench.offload.requests import Requests

__all__ = ["discard_labels", "flipped", "phase_labels", "phases"]


def discard_labels(requests: Requests, capacity: int) -> NDArray[np.int8]:
    """For every request 1 if the optimum evicts the page before it is asked for again, else 0.

    Args:
        requests: in the order of the replay.
        capacity: of the cache: labels of one capacity are wrong for another.
    """
    event, order = cache_events(requests, "min", capacity), np.argsort(requests.page, kind="stable")
    is_eviction = event >= 0
    end_of_set = np.repeat(requests.start[1:], np.diff(requests.start))[is_eviction]
    # requests by page and there by time: the newest of a page when its set ends is the one before that place.
    key = requests.page.astype(np.int64) * (len(requests) + 1)
    newest = np.searchsorted(key[order] + order, event[is_eviction] * np.int64(len(requests) + 1) + end_of_set) - 1
    label = np.zeros(len(requests), np.int8)
    label[order[newest]] = 1
    return label


def phases(requests: Requests, capacity: int) -> NDArray[np.int64]:
    """For every set the phase that it is in: phases are as long as possible with at most `capacity` pages.

    A set that is larger than the capacity is a phase of its own.
    """
    begins, seen = np.zeros(requests.num_sets, np.int64), set[int]()
    for index, pages in enumerate(requests.sets()):
        if seen and len(seen) + len(pages) - len(seen.intersection(pages)) > capacity:
            begins[index] = 1
            seen.clear()
        seen.update(pages)
    return begins.cumsum()


def phase_labels(requests: Requests, capacity: int) -> NDArray[np.int8]:
    """For every request 0 if the page is asked for again in the next phase, else 1."""
    of_set = phases(requests, capacity)
    number = np.repeat(of_set, np.diff(requests.start))
    following = next_sets(requests)
    order = np.argsort(requests.page, kind="stable")[::-1]
    is_last = following >= requests.num_sets
    next_phase = np.append(of_set, -1)[following]
    # the last request of a page in a phase decides; those before it get the same answer.
    is_decided = is_last | (next_phase != number)
    answer = (is_last | (next_phase != number + 1)).astype(np.int8)
    decider = np.maximum.accumulate(np.where(is_decided[order], np.arange(len(order)), 0))
    label = np.empty(len(requests), np.int8)
    label[order] = answer[order[decider]]
    return label


def flipped(labels: NDArray[np.int8], *, flip0: float, flip1: float, seed: int) -> NDArray[np.int8]:
    """Labels with mistakes.

    Args:
        labels: the right ones.
        flip0: probability that a 1 becomes a wrong 0.
        flip1: probability that a 0 becomes a wrong 1.
        seed: of the mistakes.
    """
    if not flip0 and not flip1:
        return labels
    generator = Random(seed)
    chance = np.array([generator.random() for _ in range(len(labels))])
    return np.where(chance < np.where(labels == 1, flip0, flip1), 1 - labels, labels).astype(np.int8)

"""Hits and evictions of a cache over recorded requests: compiled where a fast counter exists, else by a replay.

The fast counters do event for event what a replay does with the same policy. They simulate every capacity
that is asked for, side by side in one pass over the requests, as a set makes the order of touches depend on what hits
(see `workbench_kernels.paging`): only for sets that fit, and not for LRU, is a larger cache never worse.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray
from workbench_kernels import paging_counts, paging_events
from workbench_kernels.cpu.library import availability
from workbench_kernels.paging import PagingPolicy

from workbench.core.check import at_least
from workbench.core.spec import Spec
from workbench.offload.cache import Wave
from workbench.offload.policies import POLICIES
from workbench.offload.policy import NOBODY
from workbench.offload.replay.scene import replay
from workbench.offload.requests import Requests

__all__ = ["BYPASS", "FAST", "FREE", "HIT", "Counts", "cache_events", "count_requests", "counter_of"]

HIT, FREE, BYPASS = -2, NOBODY, -3

FAST: Mapping[str, PagingPolicy] = {"lru": "lru", "lfu": "lfu", "min": "min"}


@dataclass(frozen=True, kw_only=True, eq=False)
class Counts:
    """What happened to all requests, for each capacity.

    Args:
        policy: who left.
        capacity: experts that fit.
        hits: requests that found their expert.
        evictions: experts that left for another.
        requests: all of them.
        path: what counted, in one sentence.
    """

    policy: Spec
    capacity: NDArray[np.int64]
    hits: NDArray[np.int64]
    evictions: NDArray[np.int64]
    requests: int
    path: str

    @property
    def misses(self) -> NDArray[np.int64]:
        """Requests whose expert had to be brought, those that got no slot included."""
        return self.requests - self.hits

    @property
    def hit_rate(self) -> NDArray[np.float64]:
        """Share of requests that hit [1]; NaN if there was none."""
        return self.hits / self.requests if self.requests else np.full(len(self.hits), np.nan)


def counter_of(policy: str | Spec) -> tuple[bool, str]:
    """Whether a compiled counter does the work for a policy here, and one sentence on what does.

    Raises:
        LookupError: no such policy.
        ValueError: an argument that it does not take.
    """
    spec = Spec.parse(policy) if isinstance(policy, str) else policy
    spec.check(POLICIES)
    if spec.name not in FAST or spec.args:
        return False, f"general loop: {spec} has no counter of its own"
    is_there, reason = availability()
    return is_there, f"counter: {reason}" if is_there else f"general loop, which is slower: {reason}"


def count_requests(
    requests: Requests,
    policy: str | Spec,
    capacities: Sequence[int],
    *,
    on_progress: Callable[[int, int], None] | None = None,
) -> Counts:
    """Hits and evictions of one cache of each capacity, over all layers.

    Args:
        policy: as it is registered, with its arguments.
        capacities: experts that fit, at least 1 each.
        on_progress: called with capacities done and to do; a fast counter does all of them at once.

    Raises:
        LookupError: no such policy.
        ValueError: an argument that it does not take, a capacity below 1, or requests that are no sets.
    """
    spec = Spec.parse(policy) if isinstance(policy, str) else policy
    is_fast, path = counter_of(spec)
    for capacity in capacities:
        at_least("capacity", capacity, 1)
    if is_fast:
        hits, evictions = paging_counts(
            requests.page, requests.start, capacities, num_pages=requests.num_pages, policy=FAST[spec.name]
        )
        if on_progress is not None:
            on_progress(len(capacities), len(capacities))
    else:
        hits, evictions = np.zeros(len(capacities), np.int64), np.zeros(len(capacities), np.int64)
        for place, capacity in enumerate(capacities):
            hits[place], evictions[place] = _loop(requests, spec, capacity, None)
            if on_progress is not None:
                on_progress(place + 1, len(capacities))
    return Counts(
        policy=spec,
        capacity=np.asarray(capacities, np.int64),
        hits=hits,
        evictions=evictions,
        requests=len(requests),
        path=path,
    )


def cache_events(
    requests: Requests, policy: str | Spec, capacity: int, *, uses_counter: bool = True
) -> NDArray[np.int32]:
    """What every request did: HIT, FREE (it took an empty slot), BYPASS (it got no slot), or the page that left for it.

    Args:
        policy: as it is registered, with its arguments.
        capacity: experts that fit.
        uses_counter: take the compiled counter where there is one; False always takes the general loop.

    Raises:
        LookupError: no such policy.
        ValueError: an argument that it does not take, or a capacity below 1.
    """
    spec = Spec.parse(policy) if isinstance(policy, str) else policy
    at_least("capacity", capacity, 1)
    if uses_counter and counter_of(spec)[0]:
        return paging_events(
            requests.page, requests.start, capacity, num_pages=requests.num_pages, policy=FAST[spec.name]
        )
    event = np.empty(len(requests), np.int32)
    _loop(requests, spec, capacity, event)
    return event


def _loop(requests: Requests, spec: Spec, capacity: int, event: NDArray[np.int32] | None) -> tuple[int, int]:
    note = None if event is None else partial(_note, event, requests.page.tolist(), requests.start.tolist())
    done = replay(requests, policy=spec, capacity=capacity, served=note)
    return done.ledger.hits, done.ledger.evictions


def _note(event: NDArray[np.int32], pages: list[int], begins: list[int], number: int, wave: Wave) -> None:
    first, end = begins[number], begins[number + 1]
    place = dict(zip(pages[first:end], range(first, end), strict=True))
    event[[place[page] for page in wave.hits]] = HIT
    event[[place[page] for page in wave.misses]] = wave.evicted
    event[[place[page] for page in wave.bypassed]] = BYPASS

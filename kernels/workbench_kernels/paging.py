"""Caches of pages, counted fast: many capacities in one pass over the sets that are asked for.

A set is asked for at once. Its hits are judged and touched first, in the order of pages; its misses are placed
after them, in the order of pages too, and nothing that the set needs leaves for it. A set larger than the cache
is served a cache full at a time.

What `lfu` and `min` keep of the pages outside a set does not depend on the capacity, so for sets that fit a larger
cache holds all that a smaller one does, and never misses more. With `lru` it may: a page that a smaller cache misses
enters after those that it hits, and in a larger cache, where it hits, it is touched before others. So every capacity
is simulated, side by side, in one pass. Where every set has one page, all three are stack policies.
"""

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
from jaxtyping import Int32, Int64

from workbench_kernels.cpu.library import availability, kernels
from workbench_kernels.paging_reference import stack_hits_ref

__all__ = ["PagingPolicy", "StackPolicy", "paging_counts", "paging_events", "stack_hits"]

PagingPolicy = Literal["lru", "lfu", "min"]
StackPolicy = Literal["lru", "lfu", "window", "min"]

_LIMIT = 2**32


def paging_counts(
    page: Int32[np.ndarray, "A"],
    start: Int64[np.ndarray, "sets_and_end"],
    capacities: Sequence[int],
    *,
    num_pages: int,
    policy: PagingPolicy,
) -> tuple[Int64[np.ndarray, "caches"], Int64[np.ndarray, "caches"]]:
    """Hits and evictions of a cache of each capacity, all from one pass over the requests.

    Memory beside the arrays: four bytes per request for `min`, and some tables of pages for each capacity.

    Args:
        page: of every request, ascending within a set.
        start: first request of every set, and the end of the last.
        capacities: pages that fit, at least 1.
        num_pages: pages that there are.
        policy: who leaves: `lru` the oldest touch; `lfu` the fewest uses of all time, of those the oldest set that
            used it, then the smaller page; `min` the furthest next use, of equals the larger page.

    Raises:
        ValueError: pages that do not ascend or do not exist, starts that fall, a capacity below 1, or 2**32 requests.
        RuntimeError: no compiled kernels here.
    """
    hits, evictions = np.zeros(len(capacities), np.int64), np.zeros(len(capacities), np.int64)
    _count(page, start, capacities, num_pages, policy, hits, evictions, None)
    return hits, evictions


def paging_events(
    page: Int32[np.ndarray, "A"],
    start: Int64[np.ndarray, "sets_and_end"],
    capacity: int,
    *,
    num_pages: int,
    policy: PagingPolicy,
) -> Int32[np.ndarray, "A"]:
    """What every request did to a cache: -2 it hit, -1 it took a free slot, else the page that left for it.

    Args and errors are those of `paging_counts`.
    """
    event = np.empty(len(page), np.int32)
    none = np.zeros(1, np.int64)
    _count(page, start, (capacity,), num_pages, policy, none, none.copy(), event)
    return event


def stack_hits(
    page: Int32[np.ndarray, "A"],
    start: Int64[np.ndarray, "sets_and_end"],
    sequence: Int64[np.ndarray, "sequences_and_end"],
    *,
    num_pages: int,
    policy: StackPolicy,
    window: int = 1,
) -> tuple[Int64[np.ndarray, "sequences pages"], Int64[np.ndarray, "sequences pages"]]:
    """Uses of each sequence by the depth at which they are found in a stack, and first uses by the pages seen before.

    Another rule than that of `paging_counts`: all hits of a set are judged before it; then its pages enter one by
    one, in the order given, and each may put out one that the set still needs, unless the policy looks ahead. That
    order is the same for all capacities, so one pass serves them all: a cache of `c` pages hits the uses at
    depths below `c`. First uses with fewer than `c` pages seen found a free slot. Every sequence begins empty.

    Args:
        page: of every request, in the order in which a set's pages enter, each once in a set.
        start: first request of every set, and the end of the last.
        sequence: first set of every sequence, and the end of the last.
        num_pages: pages that there are.
        policy: what stays: `lru` the newest use; `lfu` the most uses of the sequence so far; `window` the most uses in
            this set and the next `window - 1`, this one left out once it is served; `min` the soonest next use. Ties
            keep the newest.
        window: sets, this one included; of `window` only.

    Raises:
        ValueError: as for `paging_counts`, or a window below 1.

    Source: arXiv 2505.16056 and the counting of its code; depths as Mattson et al. (1970) define them.
    """
    _check(page, start, num_pages)
    _check_rising("sequence", sequence, len(start) - 1)
    kind = _kind(policy, get_args(StackPolicy))
    if window < 1:
        raise ValueError(f"window must be at least 1, got {window}; 1 sees the present set only")
    if len(page) and (page.min() < 0 or page.max() >= num_pages):
        raise ValueError(f"pages must be between 0 and num_pages - 1 = {num_pages - 1}, got {page.min()}..{page.max()}")
    if not availability()[0]:
        return stack_hits_ref(page, start, sequence, num_pages=num_pages, policy=policy, window=window)
    reuse, cold = (np.zeros((len(sequence) - 1, num_pages), np.int64) for _ in range(2))
    page, start, sequence = (np.ascontiguousarray(one) for one in (page, start, sequence))
    done = kernels().library.workbench_stack(
        len(start) - 1,
        num_pages,
        page.ctypes.data,
        start.ctypes.data,
        kind,
        window,
        len(sequence) - 1,
        sequence.ctypes.data,
        reuse.ctypes.data,
        cold.ctypes.data,
    )
    if done != -1:
        raise MemoryError("no memory for the next use of every request; split the sequences")
    return reuse, cold


def _count(
    page: np.ndarray,
    start: np.ndarray,
    capacities: Sequence[int],
    num_pages: int,
    policy: str,
    hits: np.ndarray,
    evictions: np.ndarray,
    event: np.ndarray | None,
) -> None:
    kind = _kind(policy, get_args(PagingPolicy))
    _check(page, start, num_pages)
    if min(capacities, default=1) < 1:
        raise ValueError(f"a cache needs at least one slot, got capacities {list(capacities)}")
    page, start = np.ascontiguousarray(page), np.ascontiguousarray(start)
    capacity = np.asarray(capacities, np.int64)
    done = kernels().library.workbench_paging(
        len(start) - 1,
        num_pages,
        page.ctypes.data,
        start.ctypes.data,
        kind,
        len(capacity),
        capacity.ctypes.data,
        hits.ctypes.data,
        evictions.ctypes.data,
        None if event is None else event.ctypes.data,
    )
    if done == -2:
        raise MemoryError("no memory for the tables of the caches; ask for fewer capacities at once")
    if done != -1:
        wrong = page[start[done] : start[done + 1]][:8].tolist()
        raise ValueError(
            f"pages of a set must ascend and be between 0 and num_pages - 1 = {num_pages - 1}; "
            f"set {done} is {wrong}; sort it and name each page once"
        )


def _kind(policy: str, known: Sequence[str]) -> int:
    if policy not in known:
        raise ValueError(f"policy must be one of {', '.join(known)}; got {policy!r}")
    return list(known).index(policy)


def _check(page: np.ndarray, start: np.ndarray, num_pages: int) -> None:
    if len(page) + num_pages >= _LIMIT:
        raise ValueError(f"less than 2**32 requests and pages can be counted, got {len(page)}; split the requests")
    _check_rising("start", start, len(page))


def _check_rising(name: str, bounds: np.ndarray, end: int) -> None:
    if not len(bounds) or bounds[0] != 0 or bounds[-1] != end or (bounds[1:] < bounds[:-1]).any():
        raise ValueError(f"{name} must rise from 0 to {end}, got {bounds[:4].tolist()}...{bounds[-1:].tolist()}")

"""The specification of the paging kernels: plain Python loops, one cache at a time."""

from collections import Counter, OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

import numpy as np
from jaxtyping import Int32, Int64

__all__ = ["paging_events_ref", "stack_hits_ref"]


def paging_events_ref(
    page: Int32[np.ndarray, "A"],
    start: Int64[np.ndarray, "sets_and_end"],
    capacity: int,
    *,
    num_pages: int,
    policy: str,
) -> Int32[np.ndarray, "A"]:
    """What every request did to a cache, as `paging_events` says it."""
    event, pages, bounds = np.empty(len(page), np.int32), page.tolist(), start.tolist()
    soonest = _next_uses(pages, num_pages)
    cache: OrderedDict[int, tuple[int, int]] = OrderedDict()
    uses: Counter[int] = Counter()
    for low, high in pairwise(bounds):
        hits = [at for at in range(low, high) if pages[at] in cache]
        missing = [at for at in range(low, high) if pages[at] not in cache]
        for at in hits:
            _use(cache, uses, pages[at], (at, soonest[at]))
        event[hits] = -2
        needed = {pages[at] for at in hits}
        while missing:
            wave = missing[: capacity - len(needed)]
            missing = missing[len(wave) :]
            needed |= {pages[at] for at in wave}
            for at in wave:
                event[at] = -1 if len(cache) < capacity else _leave(cache, uses, needed, policy)
                _use(cache, uses, pages[at], (at, soonest[at]))
            needed = set()
    return event


def stack_hits_ref(
    page: Int32[np.ndarray, "A"],
    start: Int64[np.ndarray, "sets_and_end"],
    sequence: Int64[np.ndarray, "sequences_and_end"],
    *,
    num_pages: int,
    policy: str,
    window: int = 1,
) -> tuple[Int64[np.ndarray, "sequences pages"], Int64[np.ndarray, "sequences pages"]]:
    """Uses by stack depth and first uses by pages seen, as `stack_hits` says it."""
    reuse, cold = (np.zeros((len(sequence) - 1, num_pages), np.int64) for _ in range(2))
    bounds, ends = start.tolist(), sequence.tolist()
    for row, (first, end) in enumerate(pairwise(ends)):
        sets = [page[bounds[s] : bounds[s + 1]].tolist() for s in range(first, end)]
        stack: list[int] = []
        last: dict[int, tuple[int, int]] = {}
        for number, one in enumerate(sets):
            new = [wanted for wanted in one if wanted not in stack]
            for wanted in set(one).difference(new):
                reuse[row, stack.index(wanted)] += 1
            for seen in range(len(stack), len(stack) + len(new)):
                cold[row, seen] += 1
            for place, wanted in enumerate(one):
                rank = _ranks(sets, number, place, policy, window)
                stack = _pushed(stack, wanted, {page: (rank.get(page, 0.0), last[page]) for page in stack})
                last[wanted] = (number, place)
    return reuse, cold


def _next_uses(pages: list[int], num_pages: int) -> list[int]:
    soonest, seen = [0] * len(pages), {page: len(pages) + page for page in range(num_pages)}
    for at in range(len(pages) - 1, -1, -1):
        soonest[at], seen[pages[at]] = seen[pages[at]], at
    return soonest


def _use(cache: "OrderedDict[int, tuple[int, int]]", uses: "Counter[int]", page: int, when: tuple[int, int]) -> None:
    cache[page] = when
    cache.move_to_end(page)
    uses[page] += 1


def _leave(cache: "OrderedDict[int, tuple[int, int]]", uses: "Counter[int]", needed: set[int], policy: str) -> int:
    able: Iterator[int] = (page for page in cache if page not in needed)
    if policy == "lru":
        gone = next(able)
    elif policy == "lfu":
        gone = min(able, key=lambda page: (uses[page], cache[page][0]))
    else:
        gone = max(able, key=lambda page: cache[page][1])
    del cache[gone]
    return gone


def _ranks(sets: Sequence[Sequence[int]], number: int, place: int, policy: str, window: int) -> dict[int, float]:
    """What pages are worth while place `place` of a set enters; a larger number stays, and without one it is 0."""
    entered, coming = sets[number][:place], sets[number][place:]
    if policy == "lfu":
        return dict(Counter([page for one in sets[:number] for page in one] + list(entered)))
    if policy == "window":
        return dict(Counter([*coming, *(page for one in sets[number + 1 : number + window] for page in one)]))
    if policy == "min":
        flat = [*coming, *(page for one in sets[number + 1 :] for page in one)]
        never = {page: -float(len(flat) + page) for one in sets for page in one}
        return never | {page: -float(at) for at, page in reversed(list(enumerate(flat)))}
    return {}


def _pushed(stack: list[int], page: int, worth: Mapping[int, tuple[float, tuple[int, int]]]) -> list[int]:
    """The stack with a page on top: what was there sinks past all that is worth more, down to where the page was."""
    old = stack.index(page) if page in stack else len(stack)
    if old == 0:
        return stack or [page]
    sinking, passed = stack[0], []
    for other in stack[1:old]:
        if worth[sinking] > worth[other]:
            sinking, other = other, sinking
        passed.append(other)
    return [page, *passed, sinking, *stack[old + 1 :]]

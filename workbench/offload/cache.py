"""Which experts are in the fast tier, and in which slot."""

from collections.abc import Iterator, Sequence, Set
from itertools import filterfalse
from typing import NamedTuple, final

from workbench.core.html import facts
from workbench.offload.policy import BYPASSED, NOBODY, CachePolicy

__all__ = ["ExpertCache", "Wave"]


class Wave(NamedTuple):
    """Pages that are served together.

    Args:
        hits: were resident, or on their way.
        misses: have just got a slot, in the order in which they are to be read.
        evicted: who left for each miss, -1 for nobody.
        bypassed: misses that get no slot: used once.
        slots: of the misses.
    """

    hits: list[int]
    misses: list[int]
    evicted: list[int]
    bypassed: list[int]
    slots: list[int]

    @property
    def pages(self) -> list[int]:
        """All of them."""
        return [*self.hits, *self.misses, *self.bypassed]


@final
class ExpertCache:
    """Slots for a number of experts, filled as a policy decides.

    One layer's set is one step: hits are judged before anything is inserted, the set is never evicted for
    itself, hits are touched before misses are placed. A set larger than the cache comes in waves: first all
    that are resident and as many others as fit, then the rest, a cache full at a time; every page of a set is
    loaded at most once for it.

    Args:
        capacity: slots.
        policy: who leaves.

    Attributes:
        slot_of: page -> slot, of pages that are resident or on their way.

    Source: the batched steps of arXiv 2210.02775 as expert caches use them.
    """

    def __init__(self, capacity: int, policy: CachePolicy):
        if capacity < 1:
            raise ValueError(f"a cache needs at least one slot, got {capacity}")
        self.capacity = capacity
        self.policy = policy
        self.slot_of: dict[int, int] = {}
        self._free = list(range(capacity - 1, -1, -1))

    def step(self, pages: Sequence[int]) -> Iterator[Wave]:
        """The waves in which a set is served; each is placed when it is asked for.

        Args:
            pages: different ones, in ascending order.
        """
        slot_of = self.slot_of
        hits = list(filter(slot_of.__contains__, pages))
        if hits:
            self.policy.touch_all(hits)
        if len(hits) == len(pages):
            yield Wave(hits, [], [], [], [])
            return
        missing = list(filterfalse(slot_of.__contains__, pages))
        first = self.capacity - len(hits)
        if len(missing) <= first:
            yield self._place(hits, missing, frozenset(pages))
            return
        yield self._place(hits, missing[:first], frozenset(hits + missing[:first]))
        for start in range(first, len(missing), self.capacity):
            part = missing[start : start + self.capacity]
            yield self._place([], part, frozenset(part))

    def prefetch(self, page: int, pinned: Set[int]) -> int | None:
        """A slot for a page that nobody asked for yet: who left for it, -1 for nobody, None if there is no room.

        Args:
            pinned: pages that may not leave for it.
        """
        if self._free:
            evicted = -1
        elif all(resident in pinned for resident in self.slot_of):
            return None
        else:
            evicted = self._evict(pinned)
        self._enter(page)
        return evicted

    def drop(self, page: int) -> None:
        """Take a page out, as when its copy was called off or could not be read."""
        self._free.append(self.slot_of.pop(page))
        self.policy.leave(page)

    def resize(self, capacity: int) -> list[int]:
        """Change the number of slots; the pages that had to leave, in the order of the policy.

        Slots keep their numbers: pages whose slot is gone leave too, so that memory can be given back.
        """
        if capacity < 1:
            raise ValueError(f"a cache needs at least one slot, got {capacity}")
        gone = []
        while len(self.slot_of) > capacity:
            gone.append(self._evict(frozenset()))
        for page in [page for page, slot in self.slot_of.items() if slot >= capacity]:
            self.drop(page)
            gone.append(page)
        used = set(self.slot_of.values())
        self._free = [slot for slot in range(capacity - 1, -1, -1) if slot not in used]
        self.capacity = capacity
        return gone

    def _place(self, hits: list[int], misses: list[int], pinned: frozenset[int]) -> Wave:
        slot_of, free, left = self.slot_of, self._free, list[int]()
        try:
            self.policy.place(misses, len(free), pinned, left)
        except BaseException:
            self._take_back(misses, left)
            raise
        bypassed: list[int] = []
        if left and len(left) == len(misses) and min(left) >= 0:
            # a full cache: every page gets the slot of another.
            slots = list(map(slot_of.pop, left))
        else:
            left[:0] = [NOBODY] * (len(misses) - len(left))
            if BYPASSED in left:
                bypassed = [page for page, gone in zip(misses, left, strict=True) if gone == BYPASSED]
                misses = [page for page, gone in zip(misses, left, strict=True) if gone != BYPASSED]
                left = [gone for gone in left if gone != BYPASSED]
            slots = [slot_of.pop(gone) if gone >= 0 else free.pop() for gone in left]
        slot_of.update(zip(misses, slots, strict=True))
        return Wave(hits, misses, left, bypassed, slots)

    def _take_back(self, misses: list[int], left: list[int]) -> None:
        """A policy failed: nobody will read these pages, so none of them stays, and who left for them has left."""
        self._free += [self.slot_of.pop(gone) for gone in left if gone >= 0]
        for page, gone in zip(misses, left[:-1], strict=False):
            if gone != BYPASSED:
                self.policy.leave(page)

    def _enter(self, page: int) -> None:
        # the policy first: if it fails, the page is not taken for resident.
        self.policy.enter(page)
        self.slot_of[page] = self._free.pop()

    def _evict(self, pinned: Set[int]) -> int:
        page = self.policy.victim(pinned)
        self.drop(page)
        return page

    def __repr__(self) -> str:
        return f"ExpertCache({len(self.slot_of)} of {self.capacity} slots, {type(self.policy).__name__})"

    def _repr_html_(self) -> str:
        rows = {"experts held": f"{len(self.slot_of)} of {self.capacity}", "policy": type(self.policy).__name__}
        return facts("ExpertCache", rows)

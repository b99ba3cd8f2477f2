"""Least frequently used: the expert with the fewest uses leaves."""

from collections.abc import Sequence, Set
from math import inf

from workbench.offload.policies._decay import FadingSums
from workbench.offload.policies._heap import Key, LazyHeap
from workbench.offload.policies._passes import PassClock
from workbench.offload.policy import CachePolicy, CacheShape

__all__ = ["LFU"]


class LFU(CachePolicy):
    """Evict the expert with the fewest uses; of equals the one whose last use is oldest, then the smaller page.

    A use is a set that asks for the expert, whatever its number of tokens. A prefetched expert has no use yet,
    and counts as last used when it arrived.

    Args:
        in_cache: forget the count of an expert that leaves. The default counts the whole history, which makes
            it a stack policy.
        half_life: forward passes after which a use counts half [1]; None for never.

    Source: arXiv 2210.02775, section 1 (not competitive); whole history as in arXiv 2505.16056, section 4.
    """

    is_stack = True

    def __init__(self, shape: CacheShape, *, in_cache: bool = False, half_life: float | None = None):
        super().__init__(shape)
        self.in_cache = in_cache
        self.half_life = half_life
        self.is_stack = not in_cache
        self._uses = FadingSums(shape.num_pages, inf if half_life is None else half_life)
        self._last = [0] * shape.num_pages
        self._set = 0
        self._clock = PassClock(shape)
        self._heap = LazyHeap(self._key)

    def observe(self, layer: int, pages: Sequence[int], counts: Sequence[int]) -> None:
        """Moves time on."""
        self._set += 1
        if self.half_life is not None and self._clock.observe(layer, counts) and self._uses.advance():
            self._heap.update_all()

    def touch(self, page: int) -> None:
        """Counts a use."""
        self._uses.values[page] += self._uses.weight
        self._last[page] = self._set

    def enter(self, page: int) -> None:
        """The page may leave."""
        self._last[page] = self._set
        self._heap.add(page)

    def leave(self, page: int) -> None:
        """The page may not leave again."""
        self._heap.discard(page)
        if self.in_cache:
            self._uses.values[page] = 0.0

    def victim(self, pinned: Set[int]) -> int:
        """The page with the fewest uses."""
        page = self._heap.smallest(pinned)
        assert page is not None
        return page

    def touch_all(self, pages: Sequence[int]) -> None:
        """Counts a use of each."""
        uses, weight, last, now = self._uses.values, self._uses.weight, self._last, self._set
        for page in pages:
            uses[page] += weight
            last[page] = now

    def place(self, pages: Sequence[int], free: int, pinned: frozenset[int], left: list[int]) -> None:
        """The pages with the fewest uses leave; a use of each placed one is counted."""
        gone = self._heap.take(len(pages) - free, pinned)
        if self.in_cache:
            for page in gone:
                self._uses.values[page] = 0.0
        self.touch_all(pages)
        self._heap.add_all(pages)
        left += gone

    def _key(self, page: int) -> Key:
        return (self._uses.values[page], self._last[page], page)

"""Least frequently used of late: uses count for a number of passes."""

from collections import deque
from collections.abc import Sequence, Set

from workbench.offload.policies._heap import Key, LazyHeap
from workbench.offload.policies._passes import PassClock
from workbench.offload.policy import CachePolicy, CacheShape

__all__ = ["WindowLFU"]


class WindowLFU(CachePolicy):
    """Evict the expert with the fewest uses in the last passes; of equals the one whose last use is oldest.

    Args:
        window: forward passes that count, the running one included. No paper fixes it; 16 is the window for which
            the source tabulates how well a fixed set of experts serves.

    Source: arXiv 2505.16056, section 4, looking back instead of ahead.
    """

    is_stack = True

    def __init__(self, shape: CacheShape, *, window: int = 16):
        super().__init__(shape)
        if window < 1:
            raise ValueError(f"window must be at least 1 pass, got {window}")
        self.window = window
        self._uses = [0] * shape.num_pages
        self._last = [0] * shape.num_pages
        self._set = 0
        self._clock = PassClock(shape)
        self._passes: deque[list[int]] = deque()
        self._heap = LazyHeap(self._key)

    def observe(self, layer: int, pages: Sequence[int], counts: Sequence[int]) -> None:
        """Counts a use of every page; uses that are too old count no longer."""
        self._set += 1
        if self._clock.observe(layer, counts):
            self._passes.append([])
            if len(self._passes) > self.window:
                self._forget(self._passes.popleft())
        self._passes[-1].extend(pages)
        uses, last, now = self._uses, self._last, self._set
        for page in pages:
            uses[page] += 1
            last[page] = now

    def touch(self, page: int) -> None:
        """Nothing: it is counted when its set is observed."""

    def enter(self, page: int) -> None:
        """The page may leave."""
        self._last[page] = self._set
        self._heap.add(page)

    def leave(self, page: int) -> None:
        """The page may not leave again."""
        self._heap.discard(page)

    def victim(self, pinned: Set[int]) -> int:
        """The page with the fewest uses."""
        page = self._heap.smallest(pinned)
        assert page is not None
        return page

    def touch_all(self, pages: Sequence[int]) -> None:
        """Nothing: they are counted when their set is observed."""

    def place(self, pages: Sequence[int], free: int, pinned: frozenset[int], left: list[int]) -> None:
        """The pages with the fewest uses leave."""
        gone = self._heap.take(len(pages) - free, pinned)
        self._heap.add_all(pages)
        left += gone

    def _forget(self, pages: list[int]) -> None:
        uses, heap = self._uses, self._heap
        for page in pages:
            uses[page] -= 1
        heap.add_all([page for page in pages if page in heap])

    def _key(self, page: int) -> Key:
        return (self._uses[page], self._last[page], page)

"""Last in, first out: right when the experts of a layer run one after the other in the same order."""

from collections.abc import Sequence, Set

from workbench.offload.policies._decay import FadingSums
from workbench.offload.policies._heap import Key, LazyHeap
from workbench.offload.policy import CachePolicy, CacheShape

__all__ = ["LIFO"]


class LIFO(CachePolicy):
    """Evict an expert that the running layer does not need; if it needs all, the one that was loaded last.

    Experts that run in ascending order, batch after batch, are a cyclic scan: the last one loaded is needed
    last. That holds only if experts are fetched one by one; where a whole set is fetched at once, it never
    evicts its own. Which of the idle experts leaves first is not stated in the source; here it is the one with
    the lowest recent load, then the larger page.

    Args:
        half_life: sets of any layer after which a token of the recent load counts half [1]. Ours: 64.

    Source: arXiv 2303.06182, section on expert buffering.
    """

    def __init__(self, shape: CacheShape, *, half_life: float = 64.0):
        super().__init__(shape)
        self.half_life = half_life
        self._load = FadingSums(shape.num_pages, half_life)
        self._active: frozenset[int] = frozenset()
        self._loaded: dict[int, None] = {}
        self._heap = LazyHeap(self._key)

    def observe(self, layer: int, pages: Sequence[int], counts: Sequence[int]) -> None:
        """Notes what the running layer needs, and the load."""
        self._active = frozenset(pages)
        if self._load.advance():
            self._heap.update_all()
        load, weight = self._load.values, self._load.weight
        for page, count in zip(pages, counts, strict=True):
            load[page] += count * weight

    def touch(self, page: int) -> None:
        """Nothing: only the order of loading counts."""

    def enter(self, page: int) -> None:
        """The page is the last one loaded."""
        self._loaded[page] = None
        self._heap.add(page)

    def leave(self, page: int) -> None:
        """The page is forgotten."""
        del self._loaded[page]
        self._heap.discard(page)

    def victim(self, pinned: Set[int]) -> int:
        """An idle page, or the last one loaded."""
        idle = self._heap.smallest(self._active if pinned <= self._active else self._active | pinned)
        if idle is not None:
            return idle
        return next(page for page in reversed(self._loaded) if page not in pinned)

    def touch_all(self, pages: Sequence[int]) -> None:
        """Nothing: only the order of loading counts."""

    def place(self, pages: Sequence[int], free: int, pinned: frozenset[int], left: list[int]) -> None:
        """Idle pages leave, then those loaded last."""
        number = len(pages) - free
        gone = self._heap.take(number, self._active if pinned <= self._active else self._active | pinned)
        if len(gone) < number:
            others = [page for page in reversed(self._loaded) if page not in pinned and page in self._heap]
            for page in others[: number - len(gone)]:
                self._heap.discard(page)
                gone.append(page)
        for page in gone:
            del self._loaded[page]
        self._loaded.update(dict.fromkeys(pages))
        self._heap.add_all(pages)
        left += gone

    def _key(self, page: int) -> Key:
        return (self._load.values[page], -page, page)

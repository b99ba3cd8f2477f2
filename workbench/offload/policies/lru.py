"""Least recently used: the expert that nobody has asked for longest leaves."""

from collections import OrderedDict
from collections.abc import Sequence, Set

from workbench.offload.policies._order import first_free
from workbench.offload.policy import CachePolicy, CacheShape

__all__ = ["LRU"]


class LRU(CachePolicy):
    """Evict the expert whose last use is oldest; a prefetched one counts as used when it arrives.

    A stack policy only for sets of one expert: in a larger set hits are touched before misses, and which are
    hits depends on the capacity, so a larger cache may drop what a smaller one holds.

    Source: arXiv 2210.02775, section 1 (k-competitive, the best without predictions or chance).
    """

    def __init__(self, shape: CacheShape):
        super().__init__(shape)
        self._order: OrderedDict[int, None] = OrderedDict()

    def touch(self, page: int) -> None:
        """The page becomes the newest."""
        self._order.move_to_end(page)

    def enter(self, page: int) -> None:
        """The page becomes the newest."""
        self._order[page] = None

    def leave(self, page: int) -> None:
        """The page is forgotten."""
        del self._order[page]

    def victim(self, pinned: Set[int]) -> int:
        """The oldest page."""
        return next(page for page in self._order if page not in pinned)

    def touch_all(self, pages: Sequence[int]) -> None:
        """The pages become the newest."""
        becomes_newest = self._order.move_to_end
        for page in pages:
            becomes_newest(page)

    def place(self, pages: Sequence[int], free: int, pinned: frozenset[int], left: list[int]) -> None:
        """The oldest pages leave, the placed ones become the newest."""
        order = self._order
        gone = first_free(order, len(pages) - free, pinned)
        for page in gone:
            del order[page]
        for page in pages:
            order[page] = None
        left += gone

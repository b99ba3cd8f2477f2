"""The optimum: the expert whose next use is farthest leaves."""

from collections.abc import Sequence, Set

from workbench.offload.policies._future import FarthestUse, by_set
from workbench.offload.policy import CachePolicy, CacheShape
from workbench.offload.requests import Requests

__all__ = ["Min"]


class Min(CachePolicy):
    """Evict the expert whose next use is farthest (Belady): no policy that loads every miss has fewer misses.

    A bound, not a policy to run: it reads which experts later tokens will ask for. Among experts that are asked
    for by the same later set, or never, the larger page leaves. Optimal also with the running set pinned, as
    long as sets fit into the cache.

    Source: Belady, 1966; LFD in arXiv 2210.02775, section 1.
    """

    reads_future = True
    is_stack = True

    def __init__(self, shape: CacheShape):
        super().__init__(shape)
        self._uses = FarthestUse("min", by_set)

    def foresee(self, requests: Requests) -> None:
        """Notes when every page is asked for."""
        self._uses.foresee(requests)

    def observe(self, layer: int, pages: Sequence[int], counts: Sequence[int]) -> None:
        """Moves on by one set."""
        self._uses.observe(pages)

    def touch(self, page: int) -> None:
        """The next use of the page is a later one now."""
        self._uses.file(page)

    def enter(self, page: int) -> None:
        """The page may leave."""
        self._uses.file(page)

    def leave(self, page: int) -> None:
        """The page may not leave again."""
        self._uses.remove(page)

    def victim(self, pinned: Set[int]) -> int:
        """The page with the farthest next use."""
        return next(self._uses.farthest(pinned))

    def touch_all(self, pages: Sequence[int]) -> None:
        """The next uses of the pages are later ones now."""
        self._uses.file_all(pages)

    def place(self, pages: Sequence[int], free: int, pinned: frozenset[int], left: list[int]) -> None:
        """The pages with the farthest next uses leave; the placed ones may leave for another set."""
        gone = self._uses.take(len(pages) - free, pinned)
        self._uses.file_all(pages)
        left += gone

"""The optimum when a missed expert need not be kept."""

from collections.abc import Sequence, Set

from workbench.offload.policies._future import FarthestUse, by_all_later_sets
from workbench.offload.policy import BYPASSED, NOBODY, CachePolicy, CacheShape
from workbench.offload.requests import Requests

__all__ = ["MinBypass"]


class MinBypass(CachePolicy):
    """Keep whichever experts are asked for soonest; a missed one whose own next use is farthest is not kept.

    The bound for systems that can serve a miss without a slot, as by the host. Of a wave's misses and the
    experts outside the wave those with the nearest next use stay; hits of the wave stay anyway. Of experts with
    the same next set that stays whose use after it is nearer, and so on: what hits in a set stays in its slot
    beyond it. Where no use follows, the resident stays.

    The optimum for sets that fit into the cache.

    Source: optimal paging with bypassing; bound for host execution as in arXiv 2402.07033, section 3. The order
    of experts with the same next set is ours.
    """

    reads_future = True

    def __init__(self, shape: CacheShape):
        super().__init__(shape)
        self._uses = FarthestUse("min_bypass", by_all_later_sets)

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
        """Missed pages take free slots, and those of pages that are asked for later; the others get none."""
        uses = self._uses
        soonest = sorted(pages, key=uses.next.__getitem__) if len(pages) > 1 else pages
        gone = [NOBODY] * min(free, len(pages)) + uses.take_for(soonest[free:], pinned)
        stay = soonest[: len(gone)]
        uses.file_all(stay)
        got = dict.fromkeys(pages, BYPASSED)
        got.update(zip(sorted(stay), gone, strict=True))
        left += got.values()

"""A fixed hot set: the experts that are used most stay."""

from collections import OrderedDict
from collections.abc import Sequence, Set

from workbench.offload.policies._heap import Key, LazyHeap
from workbench.offload.policies._order import first_free
from workbench.offload.policy import CachePolicy, CacheShape

__all__ = ["Static"]


class Static(CachePolicy):
    """Keep the experts with the highest counts; the others share what room is left, the oldest use first.

    As every miss is loaded, one of the hot set must leave if nothing else may: that with the lowest count.

    Args:
        counts: uses of every page, as of an offline profile; None to count the first sets, which are served
            as by LRU.
        warmup_sets: how many sets are counted then. Ours: 1024.
        num_hot: size of the hot set; by default the capacity.

    Source: arXiv 2402.07033, section 3 (experts most used in an offline profile stay).
    """

    def __init__(
        self,
        shape: CacheShape,
        *,
        counts: Sequence[int] | None = None,
        warmup_sets: int = 1024,
        num_hot: int | None = None,
    ):
        super().__init__(shape)
        if counts is not None and len(counts) != shape.num_pages:
            raise ValueError(
                f"counts needs one number for each of {shape.num_pages} pages "
                f"({shape.num_layers} layers x {shape.num_experts} experts), got {len(counts)}"
            )
        self.warmup_sets = warmup_sets
        self.num_hot = shape.capacity if num_hot is None else num_hot
        self._counts = [0] * shape.num_pages if counts is None else list(counts)
        self._sets_to_count = warmup_sets if counts is None else 0
        self._hot: frozenset[int] = frozenset() if self._sets_to_count else self._hottest()
        self._cold_resident: OrderedDict[int, None] = OrderedDict()
        self._hot_resident = LazyHeap(self._key)

    @property
    def hot(self) -> frozenset[int]:
        """The pages that stay; none while they are being counted."""
        return self._hot

    def observe(self, layer: int, pages: Sequence[int], counts: Sequence[int]) -> None:
        """Counts, as long as the hot set is not fixed."""
        if not self._sets_to_count:
            return
        for page in pages:
            self._counts[page] += 1
        self._sets_to_count -= 1
        if not self._sets_to_count:
            self._hot = self._hottest()
            for page in [page for page in self._cold_resident if page in self._hot]:
                del self._cold_resident[page]
                self._hot_resident.add(page)

    def touch(self, page: int) -> None:
        """A page outside the hot set becomes the newest."""
        if page not in self._hot:
            self._cold_resident.move_to_end(page)

    def enter(self, page: int) -> None:
        """A page outside the hot set becomes the newest."""
        if page in self._hot:
            self._hot_resident.add(page)
        else:
            self._cold_resident[page] = None

    def leave(self, page: int) -> None:
        """The page is forgotten."""
        if page in self._hot:
            self._hot_resident.discard(page)
        else:
            del self._cold_resident[page]

    def victim(self, pinned: Set[int]) -> int:
        """The oldest page outside the hot set; else the hot one with the lowest count, then the larger page."""
        cold = next((page for page in self._cold_resident if page not in pinned), None)
        if cold is not None:
            return cold
        page = self._hot_resident.smallest(pinned)
        assert page is not None
        return page

    def touch_all(self, pages: Sequence[int]) -> None:
        """Pages outside the hot set become the newest."""
        hot, becomes_newest = self._hot, self._cold_resident.move_to_end
        for page in pages:
            if page not in hot:
                becomes_newest(page)

    def place(self, pages: Sequence[int], free: int, pinned: frozenset[int], left: list[int]) -> None:
        """The oldest pages outside the hot set leave, then the coldest of it."""
        cold, hot, number = self._cold_resident, self._hot, len(pages) - free
        gone = first_free(cold, number, pinned)
        for page in gone:
            del cold[page]
        gone += self._hot_resident.take(number - len(gone), pinned)
        for page in pages:
            if page not in hot:
                cold[page] = None
        self._hot_resident.add_all([page for page in pages if page in hot])
        left += gone

    def _hottest(self) -> frozenset[int]:
        ranked = sorted(range(self.shape.num_pages), key=lambda page: (-self._counts[page], page))
        return frozenset(page for page in ranked[: self.num_hot] if self._counts[page] > 0)

    def _key(self, page: int) -> Key:
        return (self._counts[page], -page, page)

"""One predicted bit per request: would the optimum evict this expert before its next use?"""

from collections import OrderedDict
from collections.abc import Sequence, Set
from random import Random
from typing import Literal

from workbench.offload.policies._bits import BitSource
from workbench.offload.policies._labels import discard_labels
from workbench.offload.policies._marks import Marks
from workbench.offload.policies._order import first_free
from workbench.offload.policy import CachePolicy, CacheShape
from workbench.offload.requests import Requests

__all__ = ["DiscardBits"]


class DiscardBits(CachePolicy):
    """Evict an expert whose last bit says that the optimum would, the one with the oldest use first.

    With perfect bits as few misses as the optimum. With eta0 bits that say 0 and should say 1, and eta1 the
    other way round, at most OPT + (k - 1) eta0 + eta1 misses at capacity k, or in the mean of the random form
    OPT + 2 H_k eta0 + eta1. If no bit says 1, the deterministic form empties the cache, here lazily: all that
    may leave is stale, stale experts leave before any other, and what is asked for is stale no longer. The
    random form (MARK0) then evicts as marking does. A prefetched expert has bit 0.

    Args:
        randomised: MARK0.
        bits: perfect ones, of a replay of the optimum, or learned.
        weights: of the learned bits, as of `fit_bits`.
        flip0: probability that a perfect 1 is told as 0.
        flip1: probability that a perfect 0 is told as 1.
        seed: of the flips and of MARK0.

    Source: arXiv 2210.02775, discard predictions; the bookkeeping of phases in MARK0 is unverified.
    """

    reads_future = True

    def __init__(
        self,
        shape: CacheShape,
        *,
        randomised: bool = False,
        bits: Literal["perfect", "learned"] = "perfect",
        weights: Sequence[float] = (),
        flip0: float = 0.0,
        flip1: float = 0.0,
        seed: int = 0,
    ):
        super().__init__(shape)
        self.randomised = randomised
        self.advice = BitSource(shape, discard_labels, bits=bits, weights=weights, flip0=flip0, flip1=flip1, seed=seed)
        self.reads_future = not self.advice.is_learned
        self._bit = dict.fromkeys(range(shape.num_pages), 0)
        self._marks = Marks(Random(seed + 1))
        self._kept: OrderedDict[int, None] = OrderedDict()
        self._discarded: OrderedDict[int, None] = OrderedDict()
        self._stale: OrderedDict[int, None] = OrderedDict()
        self._group_of: dict[int, OrderedDict[int, None]] = {}

    def foresee(self, requests: Requests) -> None:
        """Looks the perfect bits up."""
        self.advice.foresee(requests)

    def observe(self, layer: int, pages: Sequence[int], counts: Sequence[int]) -> None:
        """Takes the bits that come with a set."""
        self._bit.update(zip(pages, self.advice.observe(layer, pages, counts), strict=True))

    def touch(self, page: int) -> None:
        """The page is kept or discarded, as its bit says, and the newest of those."""
        self.touch_all((page,))

    def enter(self, page: int) -> None:
        """The page is kept."""
        self._kept[page] = None
        self._group_of[page] = self._kept
        if self.randomised:
            self._marks.enter(page)

    def leave(self, page: int) -> None:
        """The page is forgotten."""
        del self._group_of.pop(page)[page]
        if self.randomised:
            self._marks.leave(page)

    def victim(self, pinned: Set[int]) -> int:
        """A stale page, one whose bit says so, or else whatever the form of the policy says."""
        for pages in (self._stale, self._discarded):
            for page in first_free(pages, 1, pinned):
                return page
        if self.randomised:
            return self._marks.draw(pinned)
        for page in [page for page in self._kept if page not in pinned]:
            del self._kept[page]
            self._stale[page] = None
            self._group_of[page] = self._stale
        return first_free(self._stale, 1, pinned)[0]

    def touch_all(self, pages: Sequence[int]) -> None:
        """The pages are kept or discarded, as their bits say, and the newest of those."""
        for page in pages:
            del self._group_of[page][page]
        self._file(pages)
        if self.randomised:
            self._marks.mark_all(dict.fromkeys(pages, 0))

    def place(self, pages: Sequence[int], free: int, pinned: frozenset[int], left: list[int]) -> None:
        """Pages leave as `victim` says; the placed ones are kept or discarded, as their bits say."""
        number = len(pages) - free
        gone = first_free(self._stale, number, pinned)
        gone += first_free(self._discarded, number - len(gone), pinned)
        for page in gone:
            self.leave(page)
        while len(gone) < number:
            gone.append(self.victim(pinned))
            self.leave(gone[-1])
        self._file(pages)
        if self.randomised:
            self._marks.place(dict.fromkeys(pages, 0), 0, pinned)
        left += gone

    def _file(self, pages: Sequence[int]) -> None:
        bits, groups, group_of = self._bit, (self._kept, self._discarded), self._group_of
        for page in pages:
            group_of[page] = group = groups[bits[page]]
            group[page] = None

"""One predicted bit per request: is this expert asked for in the next phase?"""

from collections.abc import Sequence, Set
from random import Random
from typing import Literal

from workbench.offload.policies._bits import BitSource
from workbench.offload.policies._labels import phase_labels
from workbench.offload.policies._marks import Marks
from workbench.offload.policy import CachePolicy, CacheShape
from workbench.offload.requests import Requests

__all__ = ["PhaseBits"]


class PhaseBits(CachePolicy):
    """Evict a random expert without a mark, one whose bit says that the next phase does not need it if possible.

    MARK&PREDICT. A phase is as long as it can be with no more experts than the cache holds. Bit 0 says that the
    next phase asks for the expert again, 1 that it does not; the last bit of a phase counts. At most
    2 OPT + H_k eta0 + eta1 misses in the mean, and never worse than a multiple of log k of the optimum. A
    prefetched expert has bit 0 and no mark.

    Args:
        bits: perfect ones, of the phases to come, or learned.
        weights: of the learned bits, as of `fit_bits`.
        flip0: probability that a perfect 1 is told as 0.
        flip1: probability that a perfect 0 is told as 1.
        seed: of the flips and of the choice.

    Source: arXiv 2210.02775, phase predictions.
    """

    reads_future = True

    def __init__(
        self,
        shape: CacheShape,
        *,
        bits: Literal["perfect", "learned"] = "perfect",
        weights: Sequence[float] = (),
        flip0: float = 0.0,
        flip1: float = 0.0,
        seed: int = 0,
    ):
        super().__init__(shape)
        self.advice = BitSource(shape, phase_labels, bits=bits, weights=weights, flip0=flip0, flip1=flip1, seed=seed)
        self.reads_future = not self.advice.is_learned
        self._bit = dict.fromkeys(range(shape.num_pages), 0)
        self._marks = Marks(Random(seed + 1))

    def foresee(self, requests: Requests) -> None:
        """Looks the perfect bits up."""
        self.advice.foresee(requests)

    def observe(self, layer: int, pages: Sequence[int], counts: Sequence[int]) -> None:
        """Takes the bits that come with a set."""
        self._bit.update(zip(pages, self.advice.observe(layer, pages, counts), strict=True))

    def touch(self, page: int) -> None:
        """Marks the page, and keeps its bit."""
        self._marks.mark(page, self._bit[page])

    def enter(self, page: int) -> None:
        """The page is there, without a mark."""
        self._marks.enter(page)

    def leave(self, page: int) -> None:
        """The page is forgotten."""
        self._marks.leave(page)

    def victim(self, pinned: Set[int]) -> int:
        """A random page without a mark, with bit 1 if possible."""
        return self._marks.draw(pinned)

    def touch_all(self, pages: Sequence[int]) -> None:
        """Marks the pages, and keeps their bits."""
        bits = self._bit
        self._marks.mark_all({page: bits[page] for page in pages})

    def place(self, pages: Sequence[int], free: int, pinned: frozenset[int], left: list[int]) -> None:
        """Random pages without a mark leave, those with bit 1 first; the placed ones are marked."""
        bits = self._bit
        left += self._marks.place({page: bits[page] for page in pages}, len(pages) - free, pinned)

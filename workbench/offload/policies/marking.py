"""Marking: who was not asked for in this phase leaves, by chance."""

from collections.abc import Sequence, Set
from random import Random

from workbench.offload.policies._marks import Marks
from workbench.offload.policy import CachePolicy, CacheShape

__all__ = ["Marking"]


class Marking(CachePolicy):
    """Evict a random expert among those not asked for in this phase (MARKER).

    A phase ends when all that may leave were asked for in it. Twice the harmonic number of the capacity times
    the optimum, in the mean, is the worst.

    Args:
        seed: of its own generator.

    Source: Fiat et al., 1991; arXiv 2210.02775, section 1.
    """

    def __init__(self, shape: CacheShape, *, seed: int = 0):
        super().__init__(shape)
        self.seed = seed
        self._marks = Marks(Random(seed))

    def touch(self, page: int) -> None:
        """Marks the page."""
        self._marks.mark(page)

    def enter(self, page: int) -> None:
        """The page is there, without a mark."""
        self._marks.enter(page)

    def leave(self, page: int) -> None:
        """The page is forgotten."""
        self._marks.leave(page)

    def victim(self, pinned: Set[int]) -> int:
        """A random page without a mark."""
        return self._marks.draw(pinned)

    def touch_all(self, pages: Sequence[int]) -> None:
        """Marks the pages."""
        self._marks.mark_all(dict.fromkeys(pages, 0))

    def place(self, pages: Sequence[int], free: int, pinned: frozenset[int], left: list[int]) -> None:
        """Random pages without a mark leave; the placed ones are marked."""
        left += self._marks.place(dict.fromkeys(pages, 0), len(pages) - free, pinned)

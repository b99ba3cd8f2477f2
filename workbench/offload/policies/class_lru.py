"""LRU lists by class of use: often used experts age slower."""

from bisect import bisect
from collections import OrderedDict
from collections.abc import Sequence, Set
from itertools import filterfalse, repeat
from math import inf
from operator import add

from workbench.offload.policies._decay import FadingSums
from workbench.offload.policies._passes import PassClock
from workbench.offload.policy import CachePolicy, CacheShape

__all__ = ["ClassLRU"]

_CLASSES = 8
# the margin is for rounding: four uses at once are class 2, not 1.
_MARGIN = 1 + 1e-9
_SCALES = tuple(0.5**number for number in range(_CLASSES))


class ClassLRU(CachePolicy):
    """Evict the expert with the largest age / 2^class, among the oldest of each of eight classes of use.

    The class is floor(log2 F), from 0 to 7, where F counts uses that fade with the tokens passed; F outlives
    eviction, and the class is set at each use. Ours, as the source is known by description only: a use is a
    set that asks for the expert, age is counted in uses of any expert, and of equals the lower class leaves. A
    prefetched expert arrives as if used just now, without a count.

    Args:
        half_life: tokens after which a use counts half [1].

    Source: `src/llama-moe-cache.cpp` of a branch of llama.cpp, as described; LRU by arXiv 2210.02775, section 1.
    """

    def __init__(self, shape: CacheShape, *, half_life: float = 128.0):
        super().__init__(shape)
        self.half_life = half_life
        self._uses = FadingSums(shape.num_pages, half_life)
        self._clock = PassClock(shape)
        self._now = 0
        self._lists: list[OrderedDict[int, None]] = [OrderedDict() for _ in range(_CLASSES)]
        # by how many of the limits a number of uses has reached: less than one is class 0, as is one.
        self._by_limits = [self._lists[0], *self._lists]
        self._list_of: dict[int, OrderedDict[int, None]] = {}
        self._set_limits()
        # the last one is of the page -1, which stands for no page: it is never the oldest.
        self._used: list[float] = [*repeat(0, shape.num_pages), inf]

    def observe(self, layer: int, pages: Sequence[int], counts: Sequence[int]) -> None:
        """Moves the tokens on."""
        before = self._clock.tokens
        if self._clock.observe(layer, counts):
            self._uses.advance(self._clock.tokens - before)
            self._set_limits()

    def touch(self, page: int) -> None:
        """The page gets its class, and is the newest of it."""
        self.touch_all((page,))

    def enter(self, page: int) -> None:
        """The page is the newest of the class that its uses give."""
        self._list_of[page] = chosen = self._by_limits[bisect(self._limits, self._uses.values[page])]
        chosen[page] = None
        self._used[page] = self._now

    def leave(self, page: int) -> None:
        """The page is in no list; its uses are remembered."""
        del self._list_of.pop(page)[page]

    def victim(self, pinned: Set[int]) -> int:
        """The oldest page, where age counts less in a higher class."""
        heads = [next(filterfalse(pinned.__contains__, one), -1) for one in self._lists]
        ages = self._ages(heads, self._now + 1)
        # index takes the first of equals, which is the lower class.
        return heads[ages.index(max(ages))]

    def touch_all(self, pages: Sequence[int]) -> None:
        """The pages get their classes, and are the newest of those."""
        for page in pages:
            del self._list_of[page][page]
        self._count(pages)

    def place(self, pages: Sequence[int], free: int, pinned: frozenset[int], left: list[int]) -> None:
        """The oldest pages leave; the placed ones get their classes, and are the newest of those."""
        # a page for which another leaves comes after those that took the free slots.
        left += self._take(len(pages) - free, pinned, self._now + free)
        self._count(pages)

    def _take(self, number: int, pinned: Set[int], now: int) -> list[int]:
        """So many leave, one after the other, each for one that is used before the next leaves."""
        lists, list_of, used, gone = self._lists, self._list_of, self._used, list[int]()
        heads = [next(iter(one), -1) for one in lists]
        ages = self._ages(heads, now + 1)
        while len(gone) < number:
            place = ages.index(max(ages))
            one, page = lists[place], heads[place]
            if page in pinned:
                head = next(filterfalse(pinned.__contains__, one), -1)
            else:
                gone.append(page)
                del one[page], list_of[page]
                head = next(iter(one), -1)
                now += 1
                # all grow older by a use; these numbers are exact.
                ages = list(map(add, ages, _SCALES))
            heads[place] = head
            ages[place] = (now + 1 - used[head]) * _SCALES[place]
        return gone

    def _ages(self, heads: Sequence[int], now: int) -> list[float]:
        used = self._used
        return [(now - used[page]) * scale for page, scale in zip(heads, _SCALES, strict=True)]

    def _set_limits(self) -> None:
        self._limits = [self._uses.weight / scale / _MARGIN for scale in _SCALES]

    def _count(self, pages: Sequence[int]) -> None:
        uses, weight, limits, by_limits = self._uses.values, self._uses.weight, self._limits, self._by_limits
        list_of, used_at = self._list_of, self._used
        for now, page in enumerate(pages, self._now + 1):
            uses[page] = used = uses[page] + weight
            list_of[page] = chosen = by_limits[bisect(limits, used)]
            chosen[page] = None
            used_at[page] = now
        self._now += len(pages)

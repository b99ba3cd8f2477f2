"""LRU lists by class of use: often used experts age slower."""

from collections import OrderedDict
from collections.abc import Iterator, Sequence, Set
from itertools import filterfalse

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
        self._lists: list[OrderedDict[int, int]] = [OrderedDict() for _ in range(_CLASSES)]
        # by the bits of a number of uses: less than one is class 0, as is one.
        self._by_bits = [self._lists[0], *self._lists]
        self._list_of: dict[int, OrderedDict[int, int]] = {}

    def observe(self, layer: int, pages: Sequence[int], counts: Sequence[int]) -> None:
        """Moves the tokens on."""
        before = self._clock.tokens
        if self._clock.observe(layer, counts):
            self._uses.advance(self._clock.tokens - before)

    def touch(self, page: int) -> None:
        """The page gets its class, and is the newest of it."""
        self.touch_all((page,))

    def enter(self, page: int) -> None:
        """The page is the newest of the class that its uses give."""
        bits = int(self._uses.values[page] / self._uses.weight * _MARGIN).bit_length()
        self._list_of[page] = chosen = self._by_bits[min(bits, _CLASSES)]
        chosen[page] = self._now

    def leave(self, page: int) -> None:
        """The page is in no list; its uses are remembered."""
        del self._list_of.pop(page)[page]

    def victim(self, pinned: Set[int]) -> int:
        """The oldest page, where age counts less in a higher class."""
        return self._oldest(1, pinned, self._now)[0]

    def touch_all(self, pages: Sequence[int]) -> None:
        """The pages get their classes, and are the newest of those."""
        for page in pages:
            del self._list_of[page][page]
        self._count(pages)

    def place(self, pages: Sequence[int], free: int, pinned: frozenset[int], left: list[int]) -> None:
        """The oldest pages leave; the placed ones get their classes, and are the newest of those."""
        # a page for which another leaves comes after those that took the free slots.
        gone = self._oldest(len(pages) - free, pinned, self._now + free)
        for page in gone:
            del self._list_of.pop(page)[page]
        self._count(pages)
        left += gone

    def _oldest(self, number: int, pinned: Set[int], now: int) -> list[int]:
        """Who leaves, one after the other, each for one that is used before the next leaves."""
        found = list[int]()
        if number <= 0:
            return found
        # of every class the oldest page: its use, what its age counts, itself, those after it, the class.
        heads = list[tuple[int, float, int, Iterator[int], OrderedDict[int, int]]]()
        is_pinned = pinned.__contains__
        for scale, one in zip(_SCALES, self._lists, strict=True):
            if one and (page := next(pages := filterfalse(is_pinned, one), -1)) >= 0:
                heads.append((one[page], scale, page, pages, one))
        for later in range(now + 1, now + 1 + number):
            ages = [(later - used) * scale for used, scale, _, _, _ in heads]
            # index takes the first of equals, which is the lower class.
            place = ages.index(max(ages))
            _, scale, page, pages, one = heads[place]
            found.append(page)
            if (after := next(pages, -1)) >= 0:
                heads[place] = (one[after], scale, after, pages, one)
            else:
                del heads[place]
        return found

    def _count(self, pages: Sequence[int]) -> None:
        uses, weight, list_of, by_bits = self._uses.values, self._uses.weight, self._list_of, self._by_bits
        for now, page in enumerate(pages, self._now + 1):
            uses[page] = used = uses[page] + weight
            bits = int(used / weight * _MARGIN).bit_length()
            list_of[page] = chosen = by_bits[bits if bits < _CLASSES else _CLASSES]
            chosen[page] = now
        self._now += len(pages)

"""Marks on resident pages, and random choice among those without."""

from collections.abc import Iterable, Mapping, Sequence, Set
from random import Random

__all__ = ["Marks", "RandomPool"]


class RandomPool:
    """Pages from which one is drawn at random, every operation in constant time."""

    def __init__(self) -> None:
        self._pages: list[int] = []
        self._place: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._pages)

    def __contains__(self, page: int) -> bool:
        return page in self._place

    def add(self, page: int) -> None:
        """Put a page in that is not there."""
        self._place[page] = len(self._pages)
        self._pages.append(page)

    def remove(self, page: int) -> None:
        """Take a page out that is there."""
        place = self._place.pop(page)
        last = self._pages.pop()
        if last != page:
            self._pages[place] = last
            self._place[last] = place

    def add_all(self, pages: Sequence[int]) -> None:
        """Put pages in that are not there."""
        self._place.update(zip(pages, range(len(self._pages), len(self._pages) + len(pages)), strict=True))
        self._pages += pages

    def remove_all(self, pages: Iterable[int]) -> None:
        """Take pages out, those of them that are there."""
        held, places = self._pages, self._place
        if not held:
            return
        for page in pages:
            place = places.pop(page, -1)
            if place >= 0:
                last = held.pop()
                if last != page:
                    held[place] = last
                    places[last] = place

    def draw(self, generator: Random, pinned: Set[int]) -> int | None:
        """One of the pages that are not pinned, each as likely; None if there is none."""
        if not self._pages:
            return None
        page = self._pages[int(generator.random() * len(self._pages))]
        if page not in pinned:
            return page
        free = [page for page in self._pages if page not in pinned]
        return free[int(generator.random() * len(free))] if free else None

    def take(self, number: int, generator: Random, pinned: Set[int]) -> list[int]:
        """So many are drawn and taken out, one after the other; fewer if there are no more."""
        held, places, drawn, taken = self._pages, self._place, generator.random, list[int]()
        while len(taken) < number and held:
            place = int(drawn() * len(held))
            page = held[place]
            if page in pinned:
                free = [page for page in held if page not in pinned]
                if not free:
                    break
                page = free[int(drawn() * len(free))]
                place = places[page]
            taken.append(page)
            del places[page]
            last = held.pop()
            if last != page:
                held[place] = last
                places[last] = place
        return taken


class Marks:
    """Which resident pages were asked for in this phase, and who leaves by that.

    A phase ends when a page must leave and all that may are marked. Pages of the running set keep their marks
    then: their request is the first of the new phase.

    Args:
        generator: draws who leaves.
    """

    def __init__(self, generator: Random):
        self._generator = generator
        self._marked: dict[int, int] = {}
        self._keep, self._drop = RandomPool(), RandomPool()

    def enter(self, page: int) -> None:
        """A page became resident, without a mark."""
        self._keep.add(page)

    def leave(self, page: int) -> None:
        """A page has left."""
        if self._marked.pop(page, None) is None:
            (self._keep if page in self._keep else self._drop).remove(page)

    def mark(self, page: int, bit: int = 0) -> None:
        """A page is asked for; with bit 1 it leaves before those with 0 once it has no mark."""
        self.mark_all({page: bit})

    def mark_all(self, bits: Mapping[int, int]) -> None:
        """Pages are asked for, one after the other, with a bit for each."""
        self._keep.remove_all(bits)
        self._drop.remove_all(bits)
        self._marked.update(bits)

    def place(self, bits: Mapping[int, int], gone: int, pinned: Set[int]) -> list[int]:
        """So many leave, one after the other, and pages come and are asked for; who left.

        Args:
            bits: of the pages that come; they are pinned.
        """
        left = list[int]()
        while (rest := gone - len(left)) > 0:
            taken = self._drop.take(rest, self._generator, pinned)
            if len(taken) < rest:
                taken += self._keep.take(rest - len(taken), self._generator, pinned)
            if not taken:
                self._begin_phase(pinned)
            left += taken
        self._marked.update(bits)
        return left

    def draw(self, pinned: Set[int]) -> int:
        """A random page without a mark, one with bit 1 if possible; if all are marked, a new phase begins."""
        page = self._draw(pinned)
        if page is None:
            self._begin_phase(pinned)
            page = self._draw(pinned)
        assert page is not None
        return page

    def _draw(self, pinned: Set[int]) -> int | None:
        page = self._drop.draw(self._generator, pinned) if self._drop else None
        return self._keep.draw(self._generator, pinned) if page is None else page

    def _begin_phase(self, pinned: Set[int]) -> None:
        marked = self._marked
        free = [page for page in marked if page not in pinned]
        self._keep.add_all([page for page in free if not marked[page]])
        self._drop.add_all([page for page in free if marked[page]])
        self._marked = {page: bit for page, bit in marked.items() if page in pinned}

"""The resident page with the smallest key, without a scan."""

from collections.abc import Callable, Iterable, Set
from heapq import heapify, heappop, heappush, heapreplace

__all__ = ["Key", "LazyHeap"]

Key = tuple[float | int, ...]
"""What pages are ordered by; the last number is the page."""


class LazyHeap:
    """Resident pages by a key that is computed again only when a page comes to the top.

    A key that grew needs no word; of one that may have become smaller, `update` must be told.

    Args:
        key: of a page, now.
    """

    def __init__(self, key: Callable[[int], Key]):
        self._key = key
        # an entry of the heap that is not the very tuple that is known of its page is out of date.
        self._known: dict[int, Key] = {}
        self._heap: list[Key] = []

    def __contains__(self, page: int) -> bool:
        return page in self._known

    def add(self, page: int) -> None:
        """A page became resident."""
        self.add_all((page,))

    update = add

    def add_all(self, pages: Iterable[int]) -> None:
        """Pages became resident, or their keys may have become smaller."""
        heap, known, key_of = self._heap, self._known, self._key
        for page in pages:
            key, before = key_of(page), known.get(page)
            # one that only grew is looked at when it comes to the top.
            if before is None or key < before:
                known[page] = key
                heappush(heap, key)
        if len(heap) > 4 * len(known) + 64:
            self.update_all()

    def update_all(self) -> None:
        """Any key may have become smaller."""
        self._known = {page: self._key(page) for page in self._known}
        self._heap = list(self._known.values())
        heapify(self._heap)

    def discard(self, page: int) -> None:
        """A page has left."""
        del self._known[page]

    def smallest(self, pinned: Set[int]) -> int | None:
        """The page with the smallest key that is not pinned; None if all are."""
        for page in self.take(1, pinned):
            self.add(page)
            return page
        return None

    def take(self, number: int, pinned: Set[int]) -> list[int]:
        """So many pages leave, smallest keys first, none of the pinned ones; fewer if there are no more."""
        heap, known, key_of, taken, aside = self._heap, self._known, self._key, list[int](), list[Key]()
        while len(taken) < number and heap:
            key = heap[0]
            page = int(key[-1])
            if known.get(page) is not key:
                heappop(heap)
            elif (now := key_of(page)) != key:
                known[page] = now
                heapreplace(heap, now)
            elif page in pinned:
                aside.append(heappop(heap))
            else:
                taken.append(page)
                del known[page]
                heappop(heap)
        for key in aside:
            heappush(heap, key)
        return taken

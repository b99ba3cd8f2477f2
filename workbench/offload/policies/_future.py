"""What oracles know: when every page is asked for next."""

from bisect import bisect_left, insort
from collections.abc import Callable, Iterator, Sequence, Set
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from workbench.offload.requests import Requests

__all__ = ["FarthestUse", "Foreseen", "UseOrder", "by_all_later_sets", "by_set", "next_sets"]

_SETS_AT_A_TIME = 1 << 12
_OVER: tuple[int, list[int]] = (-2, [])


class UseOrder(NamedTuple):
    """Numbers of requests in the order of time.

    Args:
        first: of the first request of every page.
        following: of the request after every request that asks for the same page.
    """

    first: NDArray[np.int64]
    following: NDArray[np.int64]


class Foreseen:
    """A number for every request of a replay, handed out set by set.

    Args:
        requests: that will be replayed.
        numbers: one for each.
    """

    def __init__(self, requests: Requests, numbers: NDArray[np.integer]):
        self._requests = requests
        self._numbers = numbers
        self._set = 0
        self._sets = self._by_set()
        self._coming = next(self._sets, _OVER)

    def take(self, pages: Sequence[int]) -> list[int]:
        """The numbers of the next set.

        Raises:
            LookupError: this is not the set that was foreseen.
        """
        first, numbers = self._coming
        if len(numbers) != len(pages) or first != (pages[0] if pages else -1):
            bounds = self._requests.start[self._set : self._set + 2].tolist()
            expected = self._requests.page[slice(*bounds)].tolist() if len(bounds) == 2 else "no more"
            raise LookupError(
                f"set {self._set} of the replay is {list(pages)}, but the policy foresaw {expected}; "
                "give foresee the requests that are replayed"
            )
        self._set += 1
        self._coming = next(self._sets, _OVER)
        return numbers

    def _by_set(self) -> Iterator[tuple[int, list[int]]]:
        """The first page of every set, -1 if it has none, and its numbers."""
        start = self._requests.start
        # some at a time: a list of everything would take many times the memory of the array.
        for begin in range(0, self._requests.num_sets, _SETS_AT_A_TIME):
            bounds = start[begin : begin + _SETS_AT_A_TIME + 1]
            numbers, pages = (one[bounds[0] : bounds[-1]].tolist() for one in (self._numbers, self._requests.page))
            for low, high in pairwise((bounds - bounds[0]).tolist()):
                yield pages[low] if low < high else -1, numbers[low:high]


class FarthestUse:
    """The resident pages in the order in which they are asked for next.

    Args:
        name: of the policy, for messages.
        order: numbers the requests that follow, the sooner the smaller.

    Attributes:
        next: the number of the request that asks for a page next, by page and as of now.
    """

    def __init__(self, name: str, order: Callable[[Requests], UseOrder]):
        self.next: list[int] = []
        self._name = name
        self._order_of = order
        self._foreseen: Foreseen | None = None
        # a sorted list: moving its tail costs less than the stale entries of a heap, and here what is stale is first:
        # a page is filed again when it is asked for, and everything else that is filed is asked for later.
        self._order: list[int] = []
        self._filed: dict[int, int] = {}

    def __contains__(self, page: int) -> bool:
        return page in self._filed

    def __len__(self) -> int:
        return len(self._filed)

    def foresee(self, requests: Requests) -> None:
        """Note when every page is asked for."""
        order = self._order_of(requests)
        self.next = order.first.tolist()
        self._foreseen = Foreseen(requests, order.following)

    def observe(self, pages: Sequence[int]) -> None:
        """A set is asked for: the next use of its pages is a later one.

        Raises:
            LookupError: nothing was foreseen, or another set.
        """
        if self._foreseen is None:
            raise LookupError(f"{self._name} reads the future: call foresee with the requests before the first of them")
        following = self.next
        for page, later in zip(pages, self._foreseen.take(pages), strict=True):
            following[page] = later

    def file(self, page: int) -> None:
        """A page is resident, and its next use may have changed."""
        self.file_all((page,))

    def file_all(self, pages: Sequence[int]) -> None:
        """Pages are resident, and their next uses may have changed."""
        following, order, filed, num_pages = self.next, self._order, self._filed, len(self.next)
        for page in pages:
            key = following[page] * num_pages + page
            if filed.get(page) != key:
                filed[page] = key
                insort(order, key)
        if len(order) > 2 * len(filed) + 64:
            del order[: bisect_left(order, min(filed.values()))]

    def remove(self, page: int) -> None:
        """A page has left."""
        del self._order[bisect_left(self._order, self._filed.pop(page))]

    def farthest(self, pinned: Set[int]) -> Iterator[int]:
        """Pages that are not pinned, the farthest next use first; of equals the larger page."""
        filed, num_pages = self._filed, len(self.next)
        return (
            page for key in reversed(self._order) if filed.get(page := key % num_pages) == key and page not in pinned
        )

    def take(self, number: int, pinned: Set[int]) -> list[int]:
        """So many pages leave, the farthest next use first, none of the pinned ones; fewer if there are no more."""
        return self._take([-1] * number, pinned)

    def take_for(self, pages: Sequence[int], pinned: Set[int]) -> list[int]:
        """As `take`, one for each of other pages, up to the first that is not asked for sooner than who would leave."""
        return self._take([self.next[page] for page in pages], pinned)

    def _take(self, soon: list[int], pinned: Set[int]) -> list[int]:
        order, filed, num_pages, taken = self._order, self._filed, len(self.next), list[int]()
        place = len(order)
        for one in soon:
            while place:
                place -= 1
                key = order[place]
                page = key % num_pages
                if page not in pinned and filed.get(page) == key:
                    break
            else:
                return taken
            if one >= key // num_pages:
                return taken
            del order[place], filed[page]
            taken.append(page)
        return taken


def by_set(requests: Requests) -> UseOrder:
    """Requests by their set: those of one set are equal; as many as there are sets stands for never."""
    first = np.full(requests.num_pages, requests.num_sets, np.int64)
    np.minimum.at(first, requests.page, _set_of_request(requests))
    return UseOrder(first, next_sets(requests))


def by_all_later_sets(requests: Requests) -> UseOrder:
    """Requests by their set, those of one set by the next set that asks for their page, and so on."""
    width = int(np.diff(requests.start).max(initial=0)) + 1
    never = requests.num_sets * width
    following, before = [never] * len(requests), _request_before(requests).tolist()
    first, bounds, pages = [never] * requests.num_pages, requests.start.tolist(), requests.page.tolist()
    for number in range(requests.num_sets - 1, -1, -1):
        # what comes after a request is known by now: it is in a later set.
        in_order = sorted(range(bounds[number], bounds[number + 1]), key=following.__getitem__)
        for place, request in enumerate(in_order, number * width):
            if (earlier := before[request]) >= 0:
                following[earlier] = place
            else:
                first[pages[request]] = place
    return UseOrder(np.array(first, np.int64), np.array(following, np.int64))


def next_sets(requests: Requests) -> NDArray[np.int64]:
    """For every request the next set that asks for the same page, the number of sets if none does."""
    number, before = _set_of_request(requests), _request_before(requests)
    following = np.full(len(requests), requests.num_sets, np.int64)
    is_repeat = before >= 0
    following[before[is_repeat]] = number[is_repeat]
    return following


def _request_before(requests: Requests) -> NDArray[np.int64]:
    """For every request the one before it that asks for the same page, -1 if there is none."""
    order = np.argsort(requests.page, kind="stable")
    earlier, later = order[:-1], order[1:]
    before = np.full(len(requests), -1, np.int64)
    is_same = requests.page[earlier] == requests.page[later]
    before[later[is_same]] = earlier[is_same]
    return before


def _set_of_request(requests: Requests) -> NDArray[np.int64]:
    return np.repeat(np.arange(requests.num_sets, dtype=np.int64), np.diff(requests.start))

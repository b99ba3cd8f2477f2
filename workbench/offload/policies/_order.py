"""Who leaves first among pages that are kept in an order."""

from collections.abc import Collection, Set
from itertools import filterfalse, islice

__all__ = ["first_free"]


def first_free(order: Collection[int], number: int, pinned: Set[int]) -> list[int]:
    """The first pages that are not pinned, at most so many.

    Args:
        number: below 0 is 0.
    """
    if number <= 0:
        return []
    found = list(islice(order, number))
    # the first ones are hardly ever pinned: what is asked for now is among the last.
    return found if pinned.isdisjoint(found) else list(islice(filterfalse(pinned.__contains__, order), number))

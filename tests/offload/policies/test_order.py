"""Who leaves first in an order."""

from workbench.offload.policies._order import first_free


def test_the_first_that_are_not_pinned_are_found_in_their_order():
    order = [5, 3, 9, 1, 7]
    assert first_free(order, 2, frozenset({1})) == [5, 3]
    assert first_free(order, 3, frozenset({3, 9})) == [5, 1, 7]


def test_there_may_be_fewer_or_none():
    assert first_free([5, 3], 4, frozenset({3})) == [5]
    assert first_free([5, 3], 0, frozenset()) == first_free([5, 3], -2, frozenset()) == []
    assert first_free([], 1, frozenset()) == []

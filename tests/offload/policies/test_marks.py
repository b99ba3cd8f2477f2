"""Marks and the random choice."""

from collections import Counter
from random import Random

import pytest

from workbench.offload.policies._marks import Marks, RandomPool


def test_every_free_page_of_a_pool_is_as_likely():
    pool, generator = RandomPool(), Random(0)
    for page in range(6):
        pool.add(page)
    pool.remove(2)
    drawn = Counter(pool.draw(generator, frozenset({0, 5})) for _ in range(3000))
    assert set(drawn) == {1, 3, 4}
    # 1000 each with a deviation of 26: five of them.
    assert list(drawn.values()) == pytest.approx([1000] * 3, abs=130)
    assert 2 not in pool
    assert len(pool) == 5


def test_a_pool_without_a_free_page_gives_none():
    pool = RandomPool()
    assert pool.draw(Random(0), frozenset()) is None
    pool.add(1)
    assert pool.draw(Random(0), frozenset({1})) is None


def test_unmarked_pages_leave_first_and_among_them_those_with_bit_1():
    marks = Marks(Random(0))
    for page in range(4):
        marks.enter(page)
    marks.mark(0)
    assert {marks.draw(frozenset({2})) for _ in range(30)} == {1, 3}
    for page in range(4):
        marks.mark(page, bit=int(page == 3))
    # all are marked: a new phase begins, in which 3 has no mark and bit 1.
    assert {marks.draw(frozenset()) for _ in range(30)} == {3}
    marks.leave(3)
    assert {marks.draw(frozenset()) for _ in range(60)} == {0, 1, 2}


def test_a_phase_begins_with_the_pinned_pages_marked():
    marks = Marks(Random(0))
    for page in range(3):
        marks.enter(page)
        marks.mark(page)
    marks.draw(frozenset({0}))
    # 0 belongs to the set that began the phase: without its pin it still is the last to leave.
    assert {marks.draw(frozenset()) for _ in range(30)} == {1, 2}

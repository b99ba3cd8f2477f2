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


def test_many_are_taken_as_if_drawn_one_after_the_other():
    whole, single = RandomPool(), RandomPool()
    whole.add_all(range(40))
    for page in range(40):
        single.add(page)
    whole.remove_all([3, 99, 7, 39])
    for page in (3, 7, 39):
        single.remove(page)
    pinned, one, other = frozenset({0, 1, 2, 11}), Random(4), Random(4)
    taken = whole.take(30, one, pinned)
    for page in taken:
        assert single.draw(other, pinned) == page
        single.remove(page)
    assert len(taken) == 30 == len({*taken} - pinned)
    assert sorted([*taken, *whole.take(9, one, frozenset()), 3, 7, 39]) == [*range(40)]
    assert len(whole) == 0 and len(whole.take(2, one, frozenset())) == 0


def test_pinned_pages_are_not_taken():
    pool = RandomPool()
    pool.add_all([1, 2, 3])
    assert sorted(pool.take(3, Random(0), frozenset({2}))) == [1, 3]
    assert 2 in pool and len(pool) == 1


def test_a_set_is_placed_as_its_pages_one_after_the_other():
    for seed in range(20):
        whole, single = Marks(Random(seed)), Marks(Random(seed))
        for marks in (whole, single):
            marks.place({page: page % 2 for page in range(6)}, 0, frozenset(range(6)))
        for pages in ([6, 7], [8, 9, 10], [0, 11]):
            bits, pinned, left = {page: page % 3 % 2 for page in pages}, frozenset(pages), []
            for page in pages:
                left.append(single.draw(pinned))
                single.leave(left[-1])
                single.enter(page)
                single.mark(page, bits[page])
            assert whole.place(bits, len(pages), pinned) == left

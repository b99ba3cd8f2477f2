"""A fixed hot set."""

import pytest

from workbench.offload.policies.static import Static


def test_the_hottest_pages_stay(replay):
    counts = [9, 1, 8, 1, 1, 0]
    done = replay("static", [[0], [2], [1], [3], [4], [1], [0], [2]], 3, num_experts=6, counts=counts, num_hot=2)
    assert done.policy.hot == {0, 2}
    assert done.evictions == {3: [1], 4: [3], 5: [4]}
    assert done.misses[-2:] == [[], []]


def test_the_hot_set_never_leaves_while_anything_else_may(replay, draw):
    for seed in range(15):
        sets = draw(seed, pages=9, largest=2, length=60)
        done = replay("static", sets, 5, num_experts=9, counts=[9 - page for page in range(9)], num_hot=3)
        assert not {0, 1, 2} & {page for gone in done.evicted for page in gone}


def test_of_a_cache_full_of_hot_pages_the_coldest_leaves(replay):
    done = replay("static", [[0], [1], [2], [3]], 3, num_experts=4, counts=[7, 5, 5, 1])
    assert done.policy.hot == {0, 1, 2}
    assert done.evictions == {3: [2]}


def test_the_hot_set_is_learned_from_the_first_sets(replay):
    sets = [[0], [1], [1], [2], [2], [2], [3], [0], [3], [0]]
    done = replay("static", sets, 3, warmup_sets=6, num_hot=2)
    assert done.policy.hot == {1, 2}
    assert set(done.cache.slot_of) == {0, 1, 2}


def test_while_it_learns_it_is_lru(replay, draw):
    for seed in range(6):
        sets = draw(seed, pages=9, largest=3, length=50)
        assert replay("static", sets, 5, warmup_sets=50).evicted[:49] == replay("lru", sets, 5).evicted[:49]


def test_pages_without_a_use_are_not_hot(shape):
    assert Static(shape(5), counts=[0, 3, 0, 0, 1, 0, 0, 0]).hot == {1, 4}


def test_counts_are_of_all_pages(shape):
    with pytest.raises(ValueError, match=r"one number for each of 8 pages \(2 layers x 4 experts\), got 3"):
        Static(shape(2), counts=[1, 2, 3])

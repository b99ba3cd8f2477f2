"""LRU, the sequences of arXiv 2210.02775 and of arXiv 2410.19123."""

from itertools import pairwise

import pytest

A, B, C = 0, 1, 2


@pytest.mark.parametrize(("capacity", "misses"), [(3, 10), (4, 8)])
def test_the_classic_sequence_has_its_known_misses(replay, classic, capacity, misses):
    assert replay("lru", classic, capacity).num_misses == misses


@pytest.mark.parametrize(("capacity", "misses"), [(2, 12), (3, 10), (4, 7), (5, 5)])
def test_batched_steps_touch_hits_first(replay, batched, capacity, misses):
    assert replay("lru", batched, capacity).num_misses == misses


def test_a_cycle_one_larger_than_the_cache_never_hits(replay, cyclic):
    assert replay("lru", cyclic, 3).num_misses == 40


def test_two_slots_for_three_experts(replay):
    assert replay("lru", [[A], [B], [C], [A], [B]], 2).num_misses == 5
    assert replay("lru", [[A], [B], [C]] * 3, 2).num_misses == 9


def test_the_oldest_leaves(replay):
    assert replay("lru", [[A], [B], [A], [C]], 2).evictions == {3: [B]}


def test_a_larger_cache_may_lose_what_a_smaller_one_holds(replay):
    # 5 is a hit of [1, 2, 5] in the larger cache and so its oldest use; in the smaller it is the last one loaded.
    sets = [[5], [10], [11], [12], [1, 2, 5], [7, 8]]
    small, large = replay("lru", sets, 3), replay("lru", sets, 4)
    assert set(small.cache.slot_of) == {5, 7, 8}
    assert set(large.cache.slot_of) == {1, 2, 7, 8}
    assert not small.policy.is_stack


def test_sets_of_one_expert_keep_the_inclusion(replay, draw):
    for seed in range(20):
        held = [set(replay("lru", draw(seed), capacity).cache.slot_of) for capacity in range(1, 7)]
        assert all(small <= large for small, large in pairwise(held))

"""The optimum, against every choice of victims."""

import pytest

from workbench.offload.policies.min import Min
from workbench.offload.requests import Requests

A, B, C = 0, 1, 2


@pytest.mark.parametrize(("capacity", "misses"), [(1, 12), (2, 9), (3, 7), (4, 6)])
def test_the_classic_sequence_has_its_known_misses(replay, classic, capacity, misses):
    assert replay("min", classic, capacity).num_misses == misses


def test_the_classic_sequence_has_its_known_evictions(replay, classic):
    assert replay("min", classic, 3).evictions == {3: [3], 6: [4], 9: [2], 10: [3]}


@pytest.mark.parametrize(("capacity", "misses"), [(2, 12), (3, 8), (4, 6), (5, 5)])
def test_batched_steps_have_their_known_misses(replay, batched, capacity, misses):
    assert replay("min", batched, capacity).num_misses == misses


def test_a_cycle_is_held_but_for_one(replay, cyclic):
    assert replay("min", cyclic, 3).num_misses == 16


def test_two_slots_for_three_experts(replay):
    assert replay("min", [[A], [B], [C], [A], [B]], 2).num_misses == 4
    assert replay("min", [[A], [B], [C]] * 3, 2).num_misses == 6


@pytest.mark.parametrize("largest", [1, 3])
def test_no_choice_of_victims_has_fewer_misses(replay, draw, optimum, largest):
    for seed in range(25):
        sets = draw(seed, largest=largest, length=12)
        for capacity in range(largest, 5):
            assert replay("min", sets, capacity).num_misses == optimum(sets, capacity), (seed, capacity)


def test_of_experts_that_are_never_used_again_the_larger_page_leaves(replay):
    assert replay("min", [[0, 1, 2], [3], [4]], 3).evictions == {1: [2], 2: [3]}


def test_a_prefetched_expert_has_its_next_use(replay, shape):
    requests = Requests.of_sets([[0], [1], [3], [2]], num_experts=4)
    policy = Min(shape(3, num_layers=1))
    policy.foresee(requests)
    policy.observe(0, [0], [1])
    for page in (0, 2, 3):
        policy.enter(page)
    assert policy.victim(frozenset()) == 0
    assert policy.victim(frozenset({0})) == 2


def test_it_must_be_told_the_future(shape):
    with pytest.raises(LookupError, match="min reads the future: call foresee"):
        Min(shape(2)).observe(0, [1], [1])

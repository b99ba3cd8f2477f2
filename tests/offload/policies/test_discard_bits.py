"""One bit per request, perfect, spoilt and learned."""

from statistics import fmean

import pytest

from workbench.offload.policies._bits import fit_bits
from workbench.offload.policies._labels import discard_labels
from workbench.offload.policies.discard_bits import DiscardBits
from workbench.offload.requests import Requests

HARMONIC = {2: 1.5, 3: 11 / 6, 4: 25 / 12}


@pytest.mark.parametrize("randomised", [False, True])
def test_perfect_bits_are_as_good_as_the_optimum(replay, draw, randomised):
    for seed in range(12):
        largest = 1 + seed % 3
        sets = draw(seed, pages=7, largest=largest, length=30)
        for capacity in range(largest, 6):
            found = replay("discard_bits", sets, capacity, randomised=randomised).num_misses
            assert found == replay("min", sets, capacity).num_misses, (seed, capacity)


def test_a_cycle_with_perfect_and_with_useless_bits(replay, cyclic):
    assert replay("discard_bits", cyclic, 3).num_misses == 16
    assert replay("discard_bits", cyclic, 3, flip0=1.0).num_misses == 40
    assert replay("discard_bits", cyclic, 3, flip1=1.0).num_misses == 40


def test_wrong_bits_cost_no_more_than_the_bound(replay, draw):
    spoilt = 0
    for seed in range(45):
        sets = draw(seed, pages=7, length=40)
        capacity = 2 + seed % 3
        done = replay("discard_bits", sets, capacity, flip0=0.3, flip1=0.3, seed=seed)
        advice = done.policy.advice
        least = replay("min", sets, capacity).num_misses
        assert least <= done.num_misses <= least + (capacity - 1) * advice.eta0 + advice.eta1
        spoilt += done.num_misses > least
    assert spoilt > 15


@pytest.mark.parametrize(("flip0", "flip1"), [(0.3, 0.0), (0.0, 0.3)])
def test_wrong_bits_cost_the_random_form_no_more_than_its_bound(replay, draw, flip0, flip1):
    for trace in range(3):
        sets, capacity = draw(trace, pages=7, length=40), 2 + trace % 3
        least = replay("min", sets, capacity).num_misses
        runs = [
            replay("discard_bits", sets, capacity, randomised=True, flip0=flip0, flip1=flip1, seed=seed)
            for seed in range(20)
        ]
        bounds = [least + 2 * HARMONIC[capacity] * run.policy.advice.eta0 + run.policy.advice.eta1 for run in runs]
        assert fmean(run.num_misses for run in runs) <= fmean(bounds)


def test_errors_are_counted_by_direction(replay, cyclic):
    wrong = replay("discard_bits", cyclic, 3, flip0=1.0).policy.advice
    right = sum(discard_labels(Requests.of_sets(cyclic), 3).tolist())
    assert (wrong.eta0, wrong.eta1) == (right, 0)
    other = replay("discard_bits", cyclic, 3, flip1=1.0).policy.advice
    assert (other.eta0, other.eta1) == (0, 40 - right)


def test_without_a_bit_of_1_everything_is_stale_but_what_comes_back(replay):
    # 3 makes all stale; 1 is asked for and fresh again, so 2 leaves before it.
    done = replay("discard_bits", [[0], [1], [2], [3], [1], [4], [5]], 3, flip0=1.0)
    assert done.evictions == {3: [0], 5: [2], 6: [3]}


def test_stale_experts_leave_before_those_with_bit_1_and_pinned_ones_never(shape):
    # the model says 1 exactly for an expert that gets most of its set's tokens.
    policy = DiscardBits(shape(3, num_layers=1), bits="learned", weights=[-0.7, 0, 0, 0, 0, 1.0, 0])
    policy.observe(0, [0, 1], [1, 1])
    for page in (0, 1):
        policy.enter(page)
        policy.touch(page)
    assert policy.victim(frozenset()) == 0
    policy.observe(0, [2], [1])
    policy.enter(2)
    policy.touch(2)
    assert policy.victim(frozenset({0})) == 1
    assert policy.victim(frozenset({0, 1})) == 2
    policy.enter(3)
    assert policy.victim(frozenset({0, 1, 2})) == 3


def test_learned_bits_spare_a_loop_from_a_scan(replay):
    sets = [[index // 2 % 4] if index % 2 == 0 else [4 + index // 2] for index in range(80)]
    requests = Requests.of_sets(sets)
    weights = fit_bits(requests, discard_labels(requests, 5))
    done = replay("discard_bits", sets, 5, bits="learned", weights=weights)
    assert not done.policy.reads_future
    # a first use of the loop looks like any of the scan: each of the four is missed once more.
    assert done.num_misses == replay("min", sets, 5).num_misses + 4 == 48
    assert replay("lru", sets, 5).num_misses == 80

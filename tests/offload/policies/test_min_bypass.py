"""The optimum with bypass, against every choice of what to keep."""

import pytest

from workbench.offload.policies.min_bypass import MinBypass


@pytest.mark.parametrize(("capacity", "misses"), [(1, 10), (2, 8)])
def test_the_classic_sequence_has_its_known_misses(replay, classic, capacity, misses):
    assert replay("min_bypass", classic, capacity).num_misses == misses


def test_an_expert_that_is_never_used_again_gets_no_slot(replay):
    done = replay("min_bypass", [[0], [1], [2], [0], [1]], 2)
    assert done.num_misses == 3
    assert set(done.cache.slot_of) == {0, 1}


def test_no_choice_of_what_to_keep_has_fewer_misses_with_sets_of_one(replay, draw, optimum):
    for seed in range(30):
        sets = draw(seed, length=12)
        for capacity in range(1, 5):
            assert replay("min_bypass", sets, capacity).num_misses == optimum(sets, capacity, bypass=True)


def test_no_choice_of_what_to_keep_has_fewer_misses_with_sets_that_fit(replay, draw, optimum):
    below_min = 0
    for seed in range(200):
        largest = 2 + seed % 3
        sets, capacity = draw(seed, pages=5 + seed % 4, largest=largest, length=8 + seed % 4), largest + seed % 2
        found = replay("min_bypass", sets, capacity).num_misses
        assert found == optimum(sets, capacity, bypass=True), seed
        below_min += found < replay("min", sets, capacity).num_misses
    assert below_min > 50


def test_of_two_with_the_same_next_set_that_stays_whose_use_after_it_is_nearer(replay):
    # 0 or 1 is held until set 2, in which it hits and keeps its slot: only 1 and 9 are asked for after it.
    done = replay("min_bypass", [[0, 9], [1, 9], [0, 1], [1, 9]], 2)
    assert done.misses == [[0, 9], [1], [0], []]


def test_of_two_misses_the_one_that_is_used_sooner_gets_the_slot(replay):
    # room is made of 7 only, which is used last: 1 is used before 0.
    done = replay("min_bypass", [[5, 6, 7], [0, 1], [5], [6], [1], [0], [7]], 3)
    assert [sorted(missed) for missed in done.misses] == [[5, 6, 7], [0, 1], [], [], [], [0], [7]]


def test_it_must_be_told_the_future(shape):
    with pytest.raises(LookupError, match="min_bypass reads the future"):
        MinBypass(shape(2)).observe(0, [1], [1])

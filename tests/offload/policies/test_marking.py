"""MARKER, in the mean over seeds."""

from statistics import fmean

import pytest

HARMONIC = {2: 1.5, 3: 11 / 6, 4: 25 / 12}


def test_the_classic_sequence_has_its_known_mean(replay, classic):
    # one run deviates by 1.06: the mean of 300 is within 0.25 at four deviations.
    mean = fmean(replay("marking", classic, 3, seed=seed).num_misses for seed in range(300))
    assert mean == pytest.approx(28 / 3, abs=0.25)


def test_the_mean_is_at_most_twice_the_harmonic_number_times_the_optimum(replay, draw):
    for trace in range(3):
        sets = draw(trace, length=30)
        for capacity, harmonic in HARMONIC.items():
            mean = fmean(replay("marking", sets, capacity, seed=seed).num_misses for seed in range(20))
            assert mean <= 2 * harmonic * replay("min", sets, capacity).num_misses


def test_a_marked_expert_never_leaves_before_one_without_a_mark(replay):
    for seed in range(20):
        # 3 begins a phase: of 0, 1 and 2 only 0 is asked for again in it, so it stays when 4 comes.
        done = replay("marking", [[0], [1], [2], [3], [0], [4]], 3, seed=seed)
        assert 0 in done.cache.slot_of


def test_the_seed_decides(replay, draw):
    sets = draw(1, pages=12, length=60)
    runs = [replay("marking", sets, 5, seed=seed).evicted for seed in (0, 0, 1)]
    assert runs[0] == runs[1] != runs[2]

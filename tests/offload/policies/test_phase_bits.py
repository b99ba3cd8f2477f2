"""MARK&PREDICT."""

from statistics import fmean

import pytest

from workbench.offload.policies._bits import fit_bits
from workbench.offload.policies._labels import phase_labels
from workbench.offload.requests import Requests

HARMONIC = {2: 1.5, 3: 11 / 6, 4: 25 / 12}


def test_perfect_bits_give_the_optimum_of_the_classic_sequence_on_every_seed(replay, classic):
    assert {replay("phase_bits", classic, 3, seed=seed).num_misses for seed in range(30)} == {7}


def test_bits_of_all_1_are_marking(replay, classic):
    # one run deviates by 1.06: the mean of 300 is within 0.25 at four deviations.
    mean = fmean(replay("phase_bits", classic, 3, seed=seed, flip1=1.0).num_misses for seed in range(300))
    assert mean == pytest.approx(28 / 3, abs=0.25)


def test_perfect_bits_cost_at_most_twice_the_optimum_in_the_mean(replay, draw):
    for trace in range(2):
        sets, capacity = draw(trace, pages=8, length=30), 2 + trace % 3
        mean = fmean(replay("phase_bits", sets, capacity, seed=seed).num_misses for seed in range(60))
        assert mean <= 2 * replay("min", sets, capacity).num_misses


def test_wrong_bits_cost_no_more_than_the_bound_in_the_mean(replay, draw):
    for trace in range(3):
        sets, capacity = draw(trace, pages=8, length=30), 2 + trace % 3
        least = replay("min", sets, capacity).num_misses
        runs = [replay("phase_bits", sets, capacity, flip0=0.3, flip1=0.3, seed=seed) for seed in range(20)]
        bounds = [2 * least + HARMONIC[capacity] * run.policy.advice.eta0 + run.policy.advice.eta1 for run in runs]
        assert fmean(run.num_misses for run in runs) <= fmean(bounds)


def test_bits_help_marking(replay, draw):
    seeds, sets = range(10), draw(5, pages=9, largest=2, length=80)
    with_bits = fmean(replay("phase_bits", sets, 5, seed=seed).num_misses for seed in seeds)
    without = fmean(replay("marking", sets, 5, seed=seed).num_misses for seed in seeds)
    assert with_bits < without - 1


def test_learned_bits_read_no_future(replay, draw):
    sets = draw(5, pages=9, largest=2, length=80)
    requests = Requests.of_sets(sets)
    weights = fit_bits(requests, phase_labels(requests, 5))
    done = replay("phase_bits", sets, 5, bits="learned", weights=weights)
    assert not done.policy.reads_future
    assert done.num_misses >= replay("min", sets, 5).num_misses

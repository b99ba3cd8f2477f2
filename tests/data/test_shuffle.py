import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.data.shuffle import permuted


@given(length=st.integers(1, 3000), seed=st.integers(0, 2**62), epoch=st.integers(0, 1000))
def test_every_place_is_visited_exactly_once(length, seed, epoch):
    visited = permuted(np.arange(length), length, seed, epoch)
    assert np.array_equal(np.sort(visited), np.arange(length))


def test_a_place_goes_to_the_same_spot_whoever_goes_with_it():
    together = permuted(np.arange(500), 500, 7, 0)
    alone = [int(permuted(np.array([place]), 500, 7, 0)[0]) for place in range(500)]
    assert together.tolist() == alone


def test_seeds_and_epochs_give_different_orders():
    orders = {tuple(permuted(np.arange(100), 100, seed, epoch).tolist()) for seed in range(5) for epoch in range(5)}
    assert len(orders) == 25


@pytest.mark.parametrize("length", [37, 1000, 4097])
def test_the_order_looks_random(length):
    # A random order has no correlation with the sorted one, and about one fixed point.
    seeds = range(40)
    orders = [permuted(np.arange(length), length, seed, 0) for seed in seeds]
    correlation = np.mean([np.corrcoef(np.arange(length), order)[0, 1] for order in orders])
    fixed = np.mean([(order == np.arange(length)).sum() for order in orders])
    assert abs(correlation) < 4 / np.sqrt(length * len(seeds))
    assert 0.4 < fixed < 1.8


def test_neighbours_are_not_sent_to_neighbours():
    order = permuted(np.arange(4096), 4096, 3, 0)
    distance = np.abs(np.diff(order))
    # The mean distance of two random places is a third of the length.
    assert abs(distance.mean() / 4096 - 1 / 3) < 0.02


def test_a_range_of_a_hundred_billion_needs_no_memory():
    length = 10**11
    visited = permuted(np.arange(10_000) * 9_999_991, length, 1, 2)
    assert len(set(visited.tolist())) == 10_000
    assert visited.max() < length
    assert abs(visited.mean() / length - 0.5) < 0.02

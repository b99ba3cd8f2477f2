"""Slots shared among layers: by hand, against every split, and what cannot be."""

import itertools

import numpy as np
import pytest

from workbench.offload.replay.budget import even_split, share_slots


def shared(misses, total, *, least=1, miss_seconds=0.5):
    return share_slots(np.array(misses), total, least=least, miss_seconds=miss_seconds)


def test_slots_go_where_they_save_most():
    found = shared([[10, 9, 8, 8], [10, 4, 2, 1]], 4)
    assert (found.slots, found.misses) == ((1, 3), 12)
    assert (found.even, found.even_misses) == ((2, 2), 13)
    assert (found.saved_seconds, found.saved_share) == (0.5, pytest.approx(1 / 13))


def test_a_flat_piece_does_not_hide_what_comes_after_it():
    # two slots of the first layer save 8, one alone saves nothing.
    found = shared([[10, 10, 2], [10, 8, 8]], 4)
    assert (found.slots, found.misses) == ((3, 1), 12)


def test_slots_that_save_nothing_stay_free():
    found = shared([[5, 2, 2], [5, 2, 2]], 6)
    assert found.misses == found.even_misses == 4
    found = shared([[5, 2, 2], [9, 7, 7], [5, 5, 1]], 8)
    assert (found.slots, found.misses) == ((2, 2, 3), 10)


def test_concave_savings_are_shared_as_well_as_by_any_split():
    generator = np.random.default_rng(0)
    for _ in range(30):
        saved = np.sort(generator.integers(0, 9, (3, 4)))[:, ::-1].cumsum(1)
        misses = np.concatenate([np.full((3, 1), 40), 40 - saved], 1)
        best = min(
            sum(int(misses[layer, one - 1]) for layer, one in enumerate(split))
            for split in itertools.product(range(1, 6), repeat=3)
            if sum(split) <= 8
        )
        assert shared(misses, 8).misses == best


def test_it_is_never_worse_than_the_even_split():
    generator = np.random.default_rng(1)
    for _ in range(200):
        misses = np.sort(generator.integers(0, 50, (4, 6)))[:, ::-1]
        found = shared(misses, int(generator.integers(8, 25)), least=2)
        assert found.misses <= found.even_misses
        assert sum(found.slots) <= 24
        assert min(found.slots) >= 2
        assert found.misses == sum(int(misses[layer, slots - 1]) for layer, slots in enumerate(found.slots))


def test_an_even_split_gives_the_first_layers_one_more():
    assert even_split(7, 3, 4) == (3, 2, 2)
    assert even_split(99, 3, 4) == (4, 4, 4)


def test_too_few_slots_are_refused_with_the_minimum():
    with pytest.raises(ValueError, match="2 layers with at least 2 slots each need 4 slots, got 3; give a larger"):
        shared([[3, 2, 1], [3, 2, 1]], 3, least=2)

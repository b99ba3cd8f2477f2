"""What two routings of the same tokens have in common."""

import inspect

import numpy as np
import pytest

from workbench.analysis._overlap import overlap, share

ONE = np.array([[[0, 1], [2, -1], [3, 1], [-1, -1]]])
TWO = np.array([[[1, 0, -1], [1, 2, -1], [0, -1, -1], [-1, -1, -1]]])


def test_assignments_count_against_the_larger_set():
    shared, most = overlap(ONE, TWO, unit="assignment")
    assert (shared.tolist(), most.tolist()) == ([[2, 1, 0, 0]], [[2, 2, 2, 0]])


def test_sets_are_equal_or_not():
    shared, most = overlap(ONE, TWO, unit="set")
    assert (shared.tolist(), most.tolist()) == ([[1, 0, 0, 0]], [[1, 1, 1, 0]])


def test_an_expert_named_twice_is_shared_once():
    shared, most = overlap(np.array([[[1, 1]]]), np.array([[[1, 2]]]), unit="assignment")
    assert (shared.item(), most.item()) == (1, 2)
    same, _ = overlap(np.array([[[1, 1]]]), np.array([[[1, 1]]]), unit="assignment")
    assert same.item() == 2


def test_random_routings_agree_with_sets():
    generator = np.random.default_rng(0)
    one, two = (generator.random((2, 40, 6)).argsort(-1)[..., :3] for _ in range(2))
    one[generator.random(one.shape) < 0.3] = -1
    shared, most = overlap(one, two, unit="assignment")
    for layer in range(2):
        for token in range(40):
            first, second = ({*side[layer, token].tolist()} - {-1} for side in (one, two))
            assert shared[layer, token] == len(first & second)
            assert most[layer, token] == max(len(first), len(second))


def test_nothing_to_compare_is_unknown():
    assert np.array_equal(share(np.array([1.0, 0.0]), np.array([2.0, 0.0])), [0.5, np.nan], equal_nan=True)


def test_an_unknown_unit_is_refused():
    with pytest.raises(ValueError, match="unit must be one of assignment, first, set; got 'sets'"):
        # below the check of types, which only tests have.
        inspect.unwrap(overlap)(ONE, TWO, unit="sets")

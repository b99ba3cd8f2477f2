"""Skew and reuse, by hand."""

import numpy as np
import pytest

from workbench.analysis.locality import hottest_share, load_gini, reuse_distances
from workbench.trace.convert import from_arrays


def trace_of(expert, num_experts):
    return from_arrays(np.zeros(len(expert), np.int64), np.asarray(expert)[:, None], num_experts=num_experts)


def test_shares_of_the_hottest_by_hand():
    trace = trace_of([[0]] * 6 + [[1]] * 3 + [[2]], 4)
    assert hottest_share(trace, share=0.25).item() == 0.6
    assert hottest_share(trace, share=0.5).item() == 0.9
    assert hottest_share(trace).item() == pytest.approx(0.4 * 0.6)
    assert hottest_share(trace).requests.item() == 10


def test_an_even_load_has_no_skew_and_one_expert_all():
    even = trace_of([[0, 1], [2, 3]], 4)
    assert (hottest_share(even).item(), load_gini(even).item()) == (pytest.approx(0.1), pytest.approx(0))
    assert load_gini(trace_of([[2]] * 9, 4)).item() == pytest.approx(0.75)
    # mean difference of 1, 3: |1 - 3| twice of four pairs, over twice the mean of 2.
    assert load_gini(trace_of([[0], [1], [1], [1]], 2)).item() == pytest.approx(0.25)


def test_reuse_distances_by_hand():
    found = reuse_distances(trace_of([[0], [1], [0], [2], [0], [1], [3], [0], [1], [2]], 4))
    assert found.isel(layer=0).values.cumsum().tolist() == [0, 2, 5, 6]
    assert found["first"].values.tolist() == [4]


def test_a_layer_that_nobody_asked_is_unknown():
    trace = from_arrays(np.zeros(2, np.int64), np.array([[[0], [-1]]] * 2), num_experts=2)
    assert np.isnan(hottest_share(trace).values).tolist() == [False, True]
    assert np.isnan(load_gini(trace).values).tolist() == [False, True]
    assert reuse_distances(trace).sum("distance").values.tolist() == [1, 0]

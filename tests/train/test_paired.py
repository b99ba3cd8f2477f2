"""Paired tests against textbook numbers and against each other."""

import numpy as np
import pytest

from workbench.train.paired import holm, paired_p_values


def test_two_degrees_of_freedom_have_a_closed_form():
    loss = np.array([[2.0, 2.2, 2.1], [1.9, 2.0, 2.05]])
    difference = loss[0] - loss[1]
    t = difference.mean() / (difference.std(ddof=1) / np.sqrt(3))
    # the distribution of t with two degrees of freedom: p = 1 - t / sqrt(2 + t^2).
    expected = 1 - t / np.sqrt(2 + t**2)
    found = paired_p_values(loss)
    assert found[0, 1] == found[1, 0] == pytest.approx(expected)
    assert np.isnan(found[0, 0])


def test_what_varies_together_stands_out_though_each_varies_much():
    noise = np.array([0.0, 5.0, -3.0])
    loss = np.stack([10 + noise, 10.1 + noise + np.array([0.001, -0.001, 0.0])])
    assert paired_p_values(loss)[0, 1] < 1e-3


def test_equal_differences_are_certain_and_none_is_none():
    loss = np.array([[1.0, 2.0], [1.0, 2.0], [1.5, 2.5]])
    found = paired_p_values(loss)
    assert found[0, 1] == 1
    assert found[0, 2] == 0


def test_one_seed_says_nothing_and_a_failed_run_is_left_out():
    assert np.isnan(paired_p_values(np.array([[1.0], [2.0]]))).all()
    loss = np.array([[1.0, 2.0, np.nan], [1.1, 2.3, 5.0]])
    assert paired_p_values(loss)[0, 1] == pytest.approx(paired_p_values(loss[:, :2])[0, 1])


def test_holm_by_hand():
    # sorted .01 .02 .04: times 3, 2, 1, never falling.
    assert np.allclose(holm(np.array([0.04, 0.01, 0.02])), [0.04, 0.03, 0.04])
    assert np.allclose(holm(np.array([0.6, 0.7])), [1.0, 1.0])


def test_holm_leaves_out_what_is_unknown():
    found = holm(np.array([0.02, np.nan, 0.03]))
    assert np.isnan(found[1])
    assert np.allclose(found[[0, 2]], [0.04, 0.04])

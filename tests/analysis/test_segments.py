"""Windows and the best fixed set, by hand and against convolution."""

import numpy as np
import pytest

from workbench.analysis._segments import best_segment, histogram_by_chance, window_counts, window_histogram


def test_the_histogram_of_six_tokens():
    expert = np.array([[0 if use == "1" else -1] for use in "110010"])
    assert window_histogram(expert, 1, 2).tolist() == [[1, 3, 1]]


def test_scores_of_a_histogram_by_hand():
    best = best_segment(np.array([1.0, 3.0, 1.0]))
    assert (best.srp, best.alpha, best.rho) == (pytest.approx(10 / 13), 1, pytest.approx(1.6))
    # uses so rare that everything is left on is worth it only for the all-on router: 2 p / (1 + p).
    full = best_segment(np.array([0.0, 4.0, 0.0]))
    assert (full.srp, full.alpha, full.rho) == (pytest.approx(2 / 3), 1, 2)


def test_without_uses_the_score_is_zero_and_nothing_is_held():
    best = best_segment(np.array([7.0, 0.0, 0.0]))
    assert best.srp == 0
    assert np.isnan(best.rho)


@pytest.mark.parametrize("window", [1, 3, 4, 16, 64])
def test_windows_are_a_convolution(window):
    active = (np.random.default_rng(0).random((150, 5)) < 0.3).astype(np.int32)
    direct = np.stack([np.convolve(one, np.ones(window, int), "valid") for one in active.T], 1)
    assert np.array_equal(window_counts(active, window), direct)


def test_windows_are_the_sums_of_two_of_half_their_length():
    active = (np.random.default_rng(1).random((90, 4)) < 0.3).astype(np.int32)
    for half in (1, 2, 4, 8, 16, 32):
        parts = window_counts(active, half)
        assert np.array_equal(window_counts(active, 2 * half), parts[half:] + parts[:-half])


def test_a_sequence_shorter_than_the_window_has_none():
    assert window_counts(np.ones((3, 2), np.int32), 4).shape == (0, 2)
    assert window_histogram(np.zeros((3, 1), np.int64), 2, 4).sum() == 0


@pytest.mark.parametrize(("share", "srp"), [(1 / 16, 0.237), (1 / 8, 0.321), (1 / 4, 0.452)])
def test_independent_tokens_score_as_the_binomial_says(share, srp):
    assert best_segment(histogram_by_chance(np.array(share), 16)).srp == pytest.approx(srp, abs=5e-4)

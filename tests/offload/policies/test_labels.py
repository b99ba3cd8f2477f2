"""The bits of a perfect adviser, those that arXiv 2210.02775's sequence has."""

import numpy as np
import pytest

from workbench.offload.policies._labels import discard_labels, flipped, phase_labels, phases
from workbench.offload.requests import Requests


@pytest.mark.parametrize(
    ("capacity", "bits"),
    [(3, [0, 0, 1, 1, 0, 0, 0, 0, 1, 1, 0, 0]), (4, [0, 0, 0, 1, 0, 0, 0, 0, 0, 1, 0, 0])],
)
def test_discard_bits_of_the_classic_sequence(classic, capacity, bits):
    assert discard_labels(Requests.of_sets(classic), capacity).tolist() == bits


def test_phase_bits_of_the_classic_sequence(classic):
    requests = Requests.of_sets(classic)
    assert phases(requests, 3).tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert phase_labels(requests, 3).tolist() == [0, 0, 1, 1, 0, 0, 0, 1, 1, 1, 1, 1]


def test_a_phase_ends_with_the_set_that_does_not_fit():
    # the third page of [0, 1, 0] is a repeat: the phase goes on until a page too many is asked for.
    assert phases(Requests.of_sets([[0], [1], [0], [2], [1]]), 2).tolist() == [0, 0, 0, 1, 1]
    assert phases(Requests.of_sets([[0, 1, 2], [3], [0]]), 2).tolist() == [0, 1, 1]


def test_requests_of_a_page_within_a_phase_have_one_answer():
    # 0 is asked for in the next phase, 1 only in the one after.
    requests = Requests.of_sets([[0], [0], [1], [2], [0], [1], [3]])
    assert phases(requests, 2).tolist() == [0, 0, 0, 1, 1, 2, 2]
    assert phase_labels(requests, 2).tolist() == [0, 0, 1, 1, 1, 1, 1]


def test_flips_have_their_shares_and_directions():
    labels = np.repeat(np.array([0, 1], np.int8), 2000)
    told = flipped(labels, flip0=0.25, flip1=0.5, seed=1)
    # four deviations of a share of 2000 are at most 0.045.
    assert (told[:2000] == 1).mean() == pytest.approx(0.5, abs=0.045)
    assert (told[2000:] == 0).mean() == pytest.approx(0.25, abs=0.045)
    assert np.array_equal(flipped(labels, flip0=0.0, flip1=0.0, seed=1), labels)
    assert not flipped(labels, flip0=1.0, flip1=0.0, seed=1).any()

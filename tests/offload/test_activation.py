"""The collection of activation matrices, the example of arXiv 2401.14361."""

import numpy as np
import pytest

from workbench.offload.activation import MatrixCollection

A = np.array([[3.0, 1.0], [0.0, 4.0]])
B = np.array([[1.0, 3.0], [4.0, 0.0]])


def collection(distance: str, *matrices: np.ndarray, capacity: int = 3) -> MatrixCollection:
    made = MatrixCollection(capacity, 2, 2, distance=distance)
    for matrix in matrices:
        made.insert(matrix)
    return made


@pytest.mark.parametrize(("distance", "likeness"), [("flat", [0.588, 0.196]), ("row", [0.949, 0.316])])
def test_the_tiny_example_is_matched(distance, likeness):
    made = collection(distance, A, B)
    made.observe(0, np.array([1.0, 0.0]))
    assert made._likeness[:2] == pytest.approx(likeness, abs=5e-4)
    assert made.nearest() == 0
    assert made.shares(0).tolist() == [[0.75, 0.25], [0.0, 1.0]]


def test_rows_weigh_equally_only_row_by_row():
    # many tokens in layer 0 speak for A, few in layer 1 for B, and more clearly.
    first, second = np.array([[9.0, 8.0], [0.0, 1.0]]), np.array([[8.0, 9.0], [1.0, 0.0]])
    for distance, nearest in (("row", 1), ("flat", 0)):
        made = collection(distance, first, second)
        made.observe(0, np.array([90.0, 10.0]))
        made.observe(1, np.array([1.0, 0.0]))
        assert made.nearest() == nearest


@pytest.mark.parametrize("distance", ["row", "flat"])
def test_a_full_collection_replaces_the_nearest(distance):
    other = np.array([[1.0, 1.0], [1.0, 1.0]])
    made = collection(distance, A, B, other)
    assert made.insert(B * 5 + 0.1) == 1
    assert len(made) == 3
    assert made.shares(0).tolist() == [[0.75, 0.25], [0.0, 1.0]]
    assert made.shares(2).tolist() == [[0.5, 0.5], [0.5, 0.5]]


def test_a_slot_that_was_never_filled_is_never_nearest():
    made = collection("row", capacity=4)
    assert made.nearest() is None
    made.insert(np.array([[1.0, 0.0], [1.0, 0.0]]))
    # nothing in common with what is stored: still that, not one of the empty slots.
    made.observe(0, np.array([0.0, 1.0]))
    assert made.nearest() == 0


def test_a_pass_begins_without_knowledge():
    made = collection("row", A, B)
    made.observe(0, np.array([0.0, 1.0]))
    assert made.nearest() == 1
    made.begin_pass()
    made.observe(0, np.array([1.0, 0.0]))
    assert made.nearest() == 0


def test_a_layer_without_tokens_has_no_shares():
    made = collection("row", np.array([[0.0, 0.0], [1.0, 3.0]]))
    assert made.shares(0).tolist() == [[0.0, 0.0], [0.25, 0.75]]


def test_wrong_settings_are_refused():
    with pytest.raises(ValueError, match="room for at least one matrix, got 0"):
        MatrixCollection(0, 2, 2, distance="row")

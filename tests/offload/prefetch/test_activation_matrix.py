"""The worked numbers of arXiv 2401.14361, and what its collection keeps."""

import pytest

A, B = [[3, 1], [0, 4]], [[1, 3], [4, 0]]


def request(driven, matrix) -> None:
    """A text of one pass with these tokens per layer and expert."""
    driven.begin()
    for layer, row in enumerate(matrix):
        experts = [expert for expert, count in enumerate(row) if count]
        driven.see(layer, experts, [count for count in row if count])


@pytest.mark.parametrize("distance", ["row", "flat"])
@pytest.mark.parametrize("order", [[A, B], [B, A]])
def test_the_tiny_match(drive, distance, order):
    driven = drive("activation_matrix", experts=2, distance=distance)
    for matrix in order:
        request(driven, matrix)
    driven.begin()
    # A is nearer: its second layer is [0, 1], times 1 - 1/2.
    assert driven.see(0, [0]) == [(3, 0.5)]
    assert driven.see(1, [1]) == []


def test_the_likeness_of_the_tiny_match(drive):
    driven = drive("activation_matrix", experts=2, distance="flat")
    for matrix in (A, B):
        request(driven, matrix)
    driven.begin()
    driven.see(0, [0])
    assert driven.prefetcher.collection._likeness[:2] == pytest.approx([0.588, 0.196], abs=5e-4)


def test_nearer_layers_come_first(drive):
    driven = drive("activation_matrix", deep=4, experts=2)
    request(driven, [[1, 0], [2, 2], [0, 4], [4, 0]])
    driven.begin()
    # shares one half and one half, one, one, times 3/4, 2/4, 1/4; the smaller page first among equals.
    assert driven.see(0, [0]) == [(5, 0.5), (2, 0.375), (3, 0.375), (6, 0.25)]
    assert driven.see(1, [0]) == [(5, 0.75), (6, 0.5)]


def test_one_request_over_and_over_is_fetched_in_the_order_of_its_own_counts(drive):
    driven = drive("activation_matrix", experts=4, eamc_capacity=1)
    row = [[1, 0, 0, 0], [2, 5, 0, 3]]
    for _ in range(3):
        request(driven, row)
    driven.begin()
    assert [page for page, _ in driven.see(0, [0])] == [5, 7, 4]


def test_a_full_collection_replaces_exactly_the_nearest(drive):
    driven = drive("activation_matrix", experts=4, eamc_capacity=2)
    like_first = [[4, 1, 0, 0], [0, 0, 4, 1]]
    for matrix in ([[1, 0, 0, 0], [0, 0, 1, 0]], [[0, 0, 0, 1], [1, 0, 0, 0]], like_first):
        request(driven, matrix)
    driven.begin()
    assert len(driven.prefetcher.collection) == 2
    assert driven.see(0, [3]) == [(4, 0.5)]
    driven.begin()
    assert driven.see(0, [0]) == [(6, pytest.approx(0.4)), (7, pytest.approx(0.1))]


def test_before_any_request_has_ended_its_own_past_counts(drive):
    driven = drive("activation_matrix")
    assert driven.see(0, [0]) == []
    driven.see(1, [2])
    driven.see(0, [0])
    driven.see(1, [2])
    driven.see(0, [0])
    driven.see(1, [3])
    assert driven.see(0, [0]) == [(6, pytest.approx(1 / 3)), (7, pytest.approx(1 / 6))]


def test_a_pass_is_compared_alone(drive):
    driven = drive("activation_matrix", experts=2)
    for matrix in (A, B):
        request(driven, matrix)
    driven.begin()
    for first, expected in ((0, 3), (1, 2), (0, 3)):
        assert driven.see(0, [first]) == [(expected, 0.5)]
        driven.see(1, [0])


def test_only_so_many_are_taken(drive):
    driven = drive("activation_matrix", most=1)
    request(driven, [[1, 0, 0, 0], [1, 3, 0, 0]])
    driven.begin()
    assert driven.see(0, [0]) == [(5, 0.375)]
    with pytest.raises(ValueError, match="most must be at least 0, got -1"):
        drive("activation_matrix", most=-1)

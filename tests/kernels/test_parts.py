"""Parts cover all rows, and know which rows of an expert come first and last."""

import pytest
import torch
from workbench_kernels import parts
from workbench_kernels.parts import Part, Piece, parts_of


@pytest.fixture
def rows_in_a_part(monkeypatch):
    def limit(rows):
        monkeypatch.setattr(parts, "_LEAST_ROWS", 1)
        monkeypatch.setattr(parts, "_PART_ELEMENTS", rows * 2)

    return limit


STACKED = torch.empty(4, 2, 5)


def test_small_experts_share_a_part_and_large_ones_are_cut(rows_in_a_part):
    rows_in_a_part(3)
    assert list(parts_of([0, 1, 3, 3, 7], STACKED)) == [
        Part(slice(0, 3), (Piece(0, slice(0, 1), True, True), Piece(1, slice(1, 3), True, True))),
        Part(slice(3, 6), (Piece(3, slice(0, 3), True, False),)),
        Part(slice(6, 7), (Piece(3, slice(0, 1), False, True),)),
    ]


def test_what_is_left_of_an_expert_shares_a_part_with_the_next_one(rows_in_a_part):
    rows_in_a_part(3)
    last = list(parts_of([0, 4, 6, 6, 6], STACKED))[-1]
    assert last == Part(slice(3, 6), (Piece(0, slice(0, 1), False, True), Piece(1, slice(1, 3), True, True)))
    assert last.size == 3


@pytest.mark.parametrize("limit", [1, 2, 5, 64])
def test_every_row_is_in_one_piece_of_its_expert(rows_in_a_part, limit):
    rows_in_a_part(limit)
    bounds = [0, 3, 3, 10, 11]
    found = {}
    for part in parts_of(bounds, STACKED):
        assert part.size <= limit
        for expert, inner, is_first, is_last in part.pieces:
            rows = range(part.rows.start + inner.start, part.rows.start + inner.stop)
            assert (is_first, is_last) == (rows[0] == bounds[expert], rows[-1] + 1 == bounds[expert + 1])
            found.update(dict.fromkeys(rows, expert))
    assert list(found.items()) == [(row, 0 if row < 3 else 2 if row < 10 else 3) for row in range(11)]


def test_no_rows_have_no_parts_and_other_devices_have_one():
    assert list(parts_of([0, 0, 0], STACKED)) == []
    (whole,) = parts_of([0, 2**20, 2**21], torch.empty(2, 2, 1, device="meta"))
    assert whole.size == 2**21

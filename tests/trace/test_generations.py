"""Numbers and positions of generated sequences."""

import pytest
import torch

from workbench.core.records import Batch
from workbench.trace.generations import Generations


def place(generations, phase, rows=1, columns=1, **fields):
    more = {"is_probe": False, "sequence": None, "position": None} | fields
    return generations.place(Batch(token_ids=torch.zeros(rows, columns, dtype=torch.int64)), phase, **more)


def test_a_batch_that_loses_a_row_says_which_are_left():
    generations = Generations()
    assert place(generations, "prefill", 3, 5) == ([0, 1, 2], [0, 0, 0])
    assert place(generations, "decode", 2, sequence=torch.tensor([0, 2])) == ([0, 2], [5, 5])
    assert place(generations, "decode", 1, sequence=torch.tensor([2])) == ([2], [6])


def test_a_prefill_in_pieces_continues_its_sequence():
    generations = Generations(first=4)
    assert place(generations, "prefill", 1, 8) == ([4], [0])
    assert place(generations, "prefill", 1, 8, sequence=torch.tensor([4])) == ([4], [8])
    assert place(generations, "decode") == ([4], [16])


def test_a_given_position_wins():
    generations = Generations()
    place(generations, "prefill", 1, 8)
    assert place(generations, "decode", position=torch.tensor([30])) == ([0], [30])
    assert place(generations, "decode") == ([0], [31])


def test_training_and_probes_start_at_zero_and_open_no_generation():
    generations = Generations()
    assert place(generations, "train", 2, 5) == ([0, 1], [0, 0])
    assert place(generations, "prefill", 1, 5, is_probe=True) == ([0], [0])
    with pytest.raises(ValueError, match="a decode step of 1 rows follows a prefill of 0"):
        place(generations, "decode")


def test_padding_does_not_lengthen_a_sequence():
    generations = Generations()
    batch = Batch(token_ids=torch.zeros(1, 4, dtype=torch.int64), mask=torch.tensor([[False, False, True, True]]))
    generations.place(batch, "prefill", is_probe=False, sequence=None, position=None)
    assert place(generations, "decode") == ([0], [2])

"""Plain arrays in, plain columns out."""

import numpy as np
import pytest

from workbench.trace import from_arrays, to_table, validate
from workbench.trace.schema import empty_trace

TOKEN_ID = np.array([5, 6, 7])
EXPERT = np.array([[[0, 3], [1, -1]], [[2, 1], [0, 1]], [[3, 0], [-1, -1]]])


def test_arrays_become_a_valid_trace_and_come_back():
    weight = np.where(EXPERT >= 0, 0.25 * (EXPERT + 1), 0).astype(np.float32)
    trace = from_arrays(TOKEN_ID, EXPERT, weight, num_experts=4, router="mixtral", decode_piece=str)
    assert validate(trace) == []
    assert trace["routing"]["expert"].values.transpose(1, 0, 2).tolist() == EXPERT.tolist()
    table = to_table(trace)
    assert {len(column) for column in table.values()} == {9}
    where = list(zip(*(table[name].tolist() for name in ("layer", "position", "slot", "expert")), strict=True))
    assert where == [
        (0, 0, 0, 0), (0, 0, 1, 3), (0, 1, 0, 2), (0, 1, 1, 1), (0, 2, 0, 3), (0, 2, 1, 0),
        (1, 0, 0, 1), (1, 1, 0, 0), (1, 1, 1, 1),
    ]  # fmt: skip
    assert table["weight"].tolist() == [0.25 * (expert + 1) for *_, expert in where]
    assert table["piece"][:2].tolist() == ["5", "5"]
    assert set(table["router"].tolist()) == {"mixtral"}


def test_weights_are_equal_shares_by_default():
    table = to_table(from_arrays(TOKEN_ID, EXPERT, num_experts=4))
    assert table["weight"].tolist() == [0.5] * 6 + [1.0, 0.5, 0.5]


def test_steps_and_sequences_make_passes_and_positions():
    trace = from_arrays(
        np.array([1, 2, 3, 4]),
        np.zeros((4, 1, 1), dtype=np.int64),
        num_experts=2,
        step=np.array([0, 0, 1, 1]),
        sequence=np.array([0, 1, 0, 1]),
        phase="decode",
    )
    assert trace["routing"]["position"].values.tolist() == [0, 0, 1, 1]
    assert trace["load"].sizes["step"] == 4


def test_every_token_of_training_is_kept_too():
    trace = from_arrays(TOKEN_ID, EXPERT, num_experts=4, step=np.array([7, 8, 9]), phase="train")
    assert trace["routing"].sizes["token"] == 3


def test_arrays_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"expert must be -1 or below num_experts=3, got -1 to 3"):
        from_arrays(TOKEN_ID, EXPERT, num_experts=3)
    with pytest.raises(ValueError, match=r"step went back from 2 to 1"):
        from_arrays(TOKEN_ID, EXPERT, num_experts=4, step=np.array([1, 2, 1]))


def test_a_trace_without_routing_has_no_table():
    with pytest.raises(LookupError, match="the trace has no /routing"):
        to_table(empty_trace())

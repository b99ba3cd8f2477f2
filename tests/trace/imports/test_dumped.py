"""What every imported trace has in common: nothing invented, all else valid."""

import numpy as np
import pytest

from workbench.trace.checks import validate
from workbench.trace.imports.dumped import DumpedPass, DumpedText, trace_of_dump


def dump(expert, *, token_id=None, num_experts=4):
    expert = np.array(expert)
    ids = np.full(len(expert), -1) if token_id is None else np.array(token_id)
    passes = [DumpedPass("prefill", [DumpedText(0, 0, ids, expert)])]
    modules = [f"m{n}" for n in range(expert.shape[1])]
    return trace_of_dump(passes, modules=modules, num_experts=num_experts, origin="a test", router="somebody")


def test_weights_are_unknown_and_nothing_is_dropped():
    trace = dump([[[0, 1], [2, 3]], [[1, -1], [3, 0]]], token_id=[7, 8])
    routing = trace["routing"]
    filled = routing["expert"].values >= 0
    assert np.isnan(routing["weight"].values[filled]).all()
    assert (routing["weight"].values[~filled] == 0).all() and (~filled).sum() == 1
    np.testing.assert_array_equal(routing["kept"].values, filled)
    assert trace.attrs["unknown"] == ["weight", "prob"]
    assert "prob" not in routing


def test_all_but_the_unknown_weights_is_valid():
    problems = validate(dump([[[0, 1]], [[1, 2]]]))
    assert [problem.where for problem in problems] in ([], ["/routing/weight"])


def test_tokens_that_the_dump_does_not_name_are_said_to_be_unknown():
    trace = dump([[[0, 1]], [[1, 2]]])
    assert trace["routing"]["token_id"].values.tolist() == [0, 0]
    assert trace.attrs["unknown"] == ["weight", "prob", "token_id"]


def test_an_expert_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="does not make a valid trace: /routing/expert: must be -1 or below"):
        dump([[[0, 4]]])

"""What a store remembers of its format."""

import json
from dataclasses import replace

import numpy as np
import pytest

from workbench.core.spec import Spec
from workbench.offload.store.blocks import BlockShape, Part
from workbench.offload.store.encoding import EXACT, Encoding

SHAPE = BlockShape((Part((2, 3), "float32"),))


def test_plain_data_gives_it_back():
    left = np.array([[4.0, 0.1, 0.25], [1 / 3, 0.1, 0.0]])
    made = Encoding(format=Spec("int4", {"levels": 2}), levels=2, dense=SHAPE, left=left)
    found = Encoding.from_json(json.loads(json.dumps(made.to_json())), BlockShape(()), 2)
    assert (found.format, found.levels, found.dense) == (made.format, 2, SHAPE)
    assert np.array_equal(found.left, left)


def test_a_store_that_does_not_say_holds_experts_as_they_are():
    found = Encoding.from_json(None, SHAPE, 4)
    assert (found.format, found.levels, found.dense, found.left.shape) == (EXACT, 1, SHAPE, (4, 2))


def test_a_calibration_is_remembered_and_one_that_is_none_leaves_no_trace():
    plain = Encoding(format=Spec("residual"), levels=1, dense=SHAPE, left=np.ones((2, 2)))
    assert set(plain.to_json()) == {"format", "levels", "dense", "left"} and plain.name == "residual"
    made = replace(plain, calibration="1f", tokens=(7, 0))
    found = Encoding.from_json(json.loads(json.dumps(made.to_json())), SHAPE, 2)
    assert (found.calibration, found.tokens) == ("1f", (7, 0))
    assert found.name == "residual calibrated on text 1f (0 to 7 tokens)"
    damaged = {**made.to_json(), "calibration": {"text": "1f", "tokens": [7]}}
    with pytest.raises(ValueError, match="2 experts need as many numbers of tokens, got 1"):
        Encoding.from_json(damaged, SHAPE, 2)


def test_norms_of_other_experts_are_refused():
    data = Encoding(format=EXACT, levels=1, dense=SHAPE, left=np.zeros((2, 2))).to_json()
    with pytest.raises(ValueError, match=r"3 experts of 1 levels need as many norms, got \(2, 2\)"):
        Encoding.from_json(data, SHAPE, 3)

"""JSON that every browser reads."""

import json
from pathlib import Path

from workbench.live.plain import plain_json


def test_what_is_no_number_is_null_at_any_depth():
    value = {"a": float("nan"), "b": [1.5, float("-inf"), {"c": (float("inf"), 2)}], 3: True, "d": None}
    assert json.loads(plain_json(value)) == {"a": None, "b": [1.5, None, {"c": [None, 2]}], "3": True, "d": None}


def test_what_json_does_not_know_is_its_text():
    assert json.loads(plain_json({"path": Path("a/b")})) == {"path": "a/b"}

"""The roster holds counts and never a text."""

import time

from workbench.hub.classroom import roster

STATE = {
    "id": "0123456789abcdef" * 2,
    "owner": "ana",
    "title": "my secret title",
    "status": "running",
    "step": 7,
    "target_step": 100,
    "loss": 2.5,
    "num_experts": 8,
    "idle_experts": [3, 5],
    "overloaded_experts": 1,
    "error": "a private error",
    "prompt": "Dear diary",
    "python": "session = Session(corpus='my diary.txt')",
    "started_at": time.time() - 60,
}


def test_a_row_has_counts():
    [row] = roster([STATE])
    assert row.pop("seconds") >= 60
    assert row == {
        "owner": "ana",
        "id": "01234567",
        "status": "running",
        "step": 7,
        "target_step": 100,
        "loss": 2.5,
        "num_experts": 8,
        "idle_experts": 2,
        "overloaded_experts": 1,
    }


def test_a_row_has_no_text_of_the_run():
    shown = str(roster([{**STATE, "step": "Dear diary", "loss": {"a": "Dear diary"}}]))
    assert not [word for word in ("secret", "private", "diary") if word in shown]


def test_a_run_that_has_said_little_has_a_row_too():
    assert roster([{"id": "a"}])[0]["seconds"] is None

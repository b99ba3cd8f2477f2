"""The live widget, with a run that is a store and a list of what it was told."""

import json
import threading
import time

import pytest

from workbench.hub.frames import WHOLE, split_frames
from workbench.hub.run_store import RunStore
from workbench.hub.schema import CommandError
from workbench.view.bundle import view_module
from workbench.view.widgets import live
from workbench.view.widgets.live import LiveWidget


class Run:
    """A run that keeps what it is told."""

    run_id = "0123"

    def __init__(self) -> None:
        self.store = RunStore()
        self.watched: list[tuple[str, set[str]]] = []
        self.told: list[dict] = []
        self.refusal: CommandError | None = None

    def watch(self, watcher, topics):
        self.watched.append((watcher, set(topics)))

    def send(self, command):
        if self.refusal is not None:
            raise self.refusal
        self.told.append(dict(command))
        return {"id": command["id"], "status": "accepted", "code": 202, "step": 7}

    def publish(self, topic="state", **values):
        self.store.put(topic, json.dumps(values).encode(), kind=WHOLE, step=1)


@pytest.fixture
def run():
    return Run()


@pytest.fixture
def widget(run):
    shown = LiveWidget(run)
    yield shown
    shown.close()


def heard(widget):
    """Every message that the widget sends, as lists of topics and numbers."""
    messages = []
    widget.observe(lambda change: messages.append([(f.topic, f.seq) for f, _ in split_frames(change["new"])]), "frame")
    return messages


def wait_until(condition, seconds=5.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.005)


def threads():
    return [thread for thread in threading.enumerate() if thread.name == "workbench-live-widget" and thread.is_alive()]


def look(widget, opening="a", **wish):
    widget.watching = {"opening": opening, "since": 0, "rate": 10, "topics": {"state": 0, "commands": 0}, **wish}


def test_it_sends_the_live_view_and_the_name_of_the_run(widget):
    state = widget.get_state()
    assert state["_esm"] == view_module("live")
    assert (state["run_id"], state["api"], state["views"]) == ("0123", "", [])


def test_without_a_front_end_it_does_nothing(widget, run):
    for step in range(20):
        run.publish(step=step)
    assert widget.frame == b""
    assert (run.watched, threads()) == ([], [])


def test_a_page_gets_what_there_is_and_then_what_comes(widget, run):
    run.publish(step=1)
    messages = heard(widget)
    look(widget)
    wait_until(lambda: messages == [[("state", 1)]])
    run.publish(step=2)
    wait_until(lambda: messages == [[("state", 1)], [("state", 2)]])


def test_a_page_that_comes_back_gets_what_it_lacks(widget, run):
    run.publish("state", step=1)
    run.publish("generation", text="a")
    messages = heard(widget)
    look(widget, since=1, topics={"state": 1, "generation": 0})
    wait_until(lambda: messages == [[("generation", 2)]])


def test_the_run_builds_what_is_watched_and_stops_when_nobody_looks(widget, run):
    look(widget, topics={"state": 0, "token_strip": 0})
    wait_until(lambda: run.watched and "token_strip" in run.watched[-1][1])
    watcher = run.watched[-1][0]
    widget.watching = {}
    assert run.watched[-1] == (watcher, set())
    wait_until(lambda: threads() == [])


def test_nothing_is_sent_after_the_page_is_gone(widget, run):
    run.publish(step=1)
    look(widget)
    wait_until(lambda: widget.frame != b"")
    widget.watching = {}
    wait_until(lambda: threads() == [])
    run.publish(step=2)
    assert widget.frame == b""


def test_a_hidden_page_gets_nothing_and_later_the_newest(widget, run):
    look(widget)
    run.publish(step=1)
    wait_until(lambda: widget.frame != b"")
    look(widget, rate=0)
    messages = heard(widget)
    for step in range(5):
        run.publish(step=step)
    time.sleep(0.3)
    assert messages == []
    look(widget, topics={"state": 1})
    wait_until(lambda: messages == [[("state", 6)]])


def test_at_most_ten_messages_a_second(widget, run):
    messages = heard(widget)
    look(widget, rate=1000)
    began = time.monotonic()
    while time.monotonic() < began + 1.0:
        run.publish(step=1)
        time.sleep(0.01)
    assert 3 <= len(messages) <= live.FASTEST + 2


def test_a_second_visit_ends_the_first(widget, run):
    look(widget, opening="a")
    look(widget, opening="b")
    wait_until(lambda: len(threads()) == 1)
    assert ("a", set()) in run.watched


def test_a_wish_that_cannot_be_read_changes_nothing(widget, run):
    run.publish(step=1)
    messages = heard(widget)
    look(widget)
    wait_until(lambda: len(messages) == 1)
    look(widget, rate=-5)
    run.publish(step=2)
    wait_until(lambda: len(messages) == 2)


def test_a_command_reaches_the_run_and_its_answer_the_page(widget, run):
    widget.command = {"id": "x1", "op": "pause", "args": {}}
    assert run.told == [{"id": "x1", "op": "pause", "args": {}}]
    assert widget.acks == {"x1": {"id": "x1", "status": "accepted", "code": 202, "step": 7}}


def test_a_refusal_is_an_answer_too(widget, run):
    run.refusal = CommandError(422, "unknown command 'x'")
    widget.command = {"id": "x1", "op": "x", "args": {}}
    assert widget.acks["x1"] == {"id": "x1", "status": "refused", "code": 422, "reason": "unknown command 'x'"}


def test_only_the_newest_answers_are_kept(widget):
    for number in range(80):
        widget.command = {"id": f"x{number}", "op": "pause", "args": {}}
    assert len(widget.acks) == 50
    assert "x79" in widget.acks and "x29" not in widget.acks


def test_closing_ends_the_thread(run):
    shown = LiveWidget(run)
    look(shown)
    wait_until(lambda: len(threads()) == 1)
    shown.close()
    wait_until(lambda: threads() == [])

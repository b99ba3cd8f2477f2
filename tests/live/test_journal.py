"""The journal: every command with what became of it, as viewers see it."""

import json

from workbench.hub.commands import Command
from workbench.hub.frames import DELTA, WHOLE, split_frames
from workbench.hub.run_store import RunStore
from workbench.live.journal import Journal


def records(store, since=0):
    data, _ = store.since(since, topics=["commands"])
    return [(frame.kind, json.loads(frame.payload)) for frame, _ in split_frames(data)]


def test_the_life_of_a_command_is_published_as_it_goes_on():
    store = RunStore()
    journal = Journal(store)
    command = Command(id="a", op="swap_router", args={"name": "switch", "args": {}}, actor="ana")
    journal.note(command, "accepted", 7)
    journal.note(command, "applied", 8, reason="top_k -> switch", result={"stall_seconds": 0.2})
    (first, [sent]), (second, [done]) = records(store)
    assert (first, second) == (WHOLE, DELTA)
    assert (sent["status"], sent["step"], sent["actor"]) == ("accepted", 7, "ana")
    assert (done["status"], done["step"], done["result"]) == ("applied", 8, {"stall_seconds": 0.2})
    assert done["python"] == "session.swap_router('switch')"
    assert [record["status"] for record in journal.records] == ["applied"]


def test_the_oldest_are_forgotten_and_a_new_viewer_still_gets_the_rest():
    store = RunStore()
    journal = Journal(store)
    for number in range(900):
        journal.note(Command(id=str(number), op="pause", args={}), "applied", number)
    seen = {}
    for kind, found in records(store):
        seen = {} if kind == WHOLE else seen
        seen |= {record["id"]: record for record in found}
    assert len(journal.records) == 200
    assert {record["id"] for record in journal.records} <= seen.keys()

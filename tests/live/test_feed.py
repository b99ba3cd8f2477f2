"""The feed: what viewers get is what the trace holds."""

import json

import numpy as np

from workbench.hub.frames import WHOLE, split_frames
from workbench.payloads.container import header_of


def frames(run, topic):
    data, _ = run.store.since(0, topics=[topic])
    return [frame for frame, _ in split_frames(data)]


def rows_sent(run, topic, name, decode):
    """What a viewer has of an array by the rule of the headers."""
    rows = None
    for frame in frames(run, topic):
        header, arrays = decode(frame.payload)
        if name in arrays:
            is_row = header.get("grow", {}).get(name) == "append" and rows is not None
            rows = np.concatenate([rows, arrays[name]]) if is_row else arrays[name]
    return rows


def test_every_step_reaches_a_viewer_once_and_is_that_of_the_trace(session, decode):
    for _ in session.train(3, progress=False):
        pass
    run = session.live.open()
    for _ in session.train(9, progress=False):
        pass
    assert run.outlet.settle()
    trace = session.trace
    assert rows_sent(run, "loss_curves", "step", decode).tolist() == list(range(1, 13))
    np.testing.assert_array_equal(rows_sent(run, "loss_curves", "loss", decode), trace["run"]["loss"].values)
    np.testing.assert_allclose(rows_sent(run, "expert_load", "train.load", decode), trace["load"]["load"].values)


def test_a_view_of_tokens_is_built_only_while_somebody_looks(session):
    run = session.live.open()
    for _ in session.train(2, progress=False):
        pass
    assert run.outlet.settle() and not frames(run, "token_strip")
    me = object()
    run.watch(me, ["token_strip", "residency", "no_such_view"])
    assert run.outlet.settle()
    assert [frame.kind for frame in frames(run, "token_strip")] == [WHOLE]
    assert header_of(frames(run, "residency")[-1].payload)["empty"]
    assert not frames(run, "expert_flow")
    run.watch(me, ())
    assert run.outlet._watchers == {}


def test_after_a_rewind_viewers_have_what_the_trace_has(session, decode):
    run = session.live.open()
    for _ in session.train(4, progress=False):
        pass
    session.swap_router("switch")
    for _ in session.train(3, progress=False):
        pass
    session.rewind()
    for _ in session.train(1, progress=False):
        pass
    assert run.outlet.settle()
    newest = frames(run, "loss_curves")[-2:]
    assert next(frame.kind for frame in newest) == WHOLE
    assert rows_sent(run, "loss_curves", "step", decode).tolist() == [1, 2, 3, 4, 5]
    assert session.trace["run"]["step"].values.tolist() == [1, 2, 3, 4, 5]


def test_idle_and_overloaded_experts_are_counted(session):
    run = session.live.open()
    session.live.command("pin_expert", layer=0, expert=3)
    for expert in range(6):
        session.live.command("ban_expert", layer=1, expert=expert)
    for _ in session.train(2, progress=False):
        pass
    assert run.outlet.settle()
    load = session.trace["load"]["load"].values[-1]
    state = run.state()
    assert state["idle_experts"] == int((load == 0).sum()) >= 6
    assert state["overloaded_experts"] == int((load > 2 / 8).sum()) >= 3
    assert load[0, 3] == 0.5 and (load[1, :6] == 0).all()
    assert json.dumps(state, allow_nan=False)

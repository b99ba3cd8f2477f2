"""A run while it trains: in a loop, in the background, paused, stopped, crashed."""

import json
import threading
import time

import pytest
import torch

from workbench.hub.places import connection_files
from workbench.live.run import RunStopped
from workbench.session import Session


def ours():
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("workbench")]


def test_training_in_the_background_is_the_same_training(session):
    run = session.train(5, background=True)
    last = run.wait(60)
    with Session(model="tiny", batch_size=1, sequence_length=16, seed=0) as other:
        *_, report = other.train(5, progress=False)
    assert last.loss == report.loss
    assert run.status == "waiting" and session.trainer.step == 5


def test_nothing_is_announced_before_it_is_opened_and_after_it_is_closed(session, runtime_folder):
    for _ in session.train(1, progress=False):
        pass
    assert connection_files() == [] and ours() == []
    session.live.open()
    (path,) = connection_files()
    assert json.loads(path.read_text())["id"] == session.live.run_id
    assert path.stat().st_mode & 0o077 == 0 and path.parent.stat().st_mode & 0o077 == 0
    session.live.close()
    assert connection_files() == [] and ours() == []


def test_a_paused_run_stands_still_answers_and_goes_on(session, until):
    run = session.train(10_000, background=True)
    until(lambda: session.trainer.step > 2)
    run.command("pause")
    until(lambda: run.status == "paused")
    time.sleep(0.1)
    at = session.trainer.step
    assert session.swap_router("switch").after == "switch"
    time.sleep(0.2)
    assert session.trainer.step == at
    run.command("step", count=3)
    until(lambda: session.trainer.step == at + 3 and run.status == "paused")
    run.command("resume")
    until(lambda: session.trainer.step > at + 5)
    run.command("stop")
    run.wait(20)
    assert run.status == "stopped" and session.trainer.step < 10_000


def test_stop_ends_a_loop_on_the_callers_thread(session):
    seen = []
    for report in session.train(1000, progress=False):
        seen.append(report.step)
        if report.step == 4:
            session.live.command("stop")
    assert seen == [1, 2, 3, 4] and session.live.status == "stopped"
    assert [r.step for r in session.train(2, progress=False)] == [5, 6]


def test_a_run_that_crashes_says_so_and_keeps_what_it_recorded(session, monkeypatch):
    def explode(*args, **kwargs):
        raise MemoryError("no memory left")

    for _ in session.train(2, progress=False):
        pass
    run = session.live.open()
    monkeypatch.setattr(session.trainer, "_one_step", explode)
    session.train(5, background=True)
    with pytest.raises(RunStopped, match="crashed at step 2: no memory left") as caught:
        run.wait(20)
    assert isinstance(caught.value.__cause__, MemoryError)
    assert run.status == "crashed" and run.state()["error"] == "MemoryError: no memory left"
    assert session.trace["run"]["step"].values.tolist() == [1, 2]


def test_a_run_cannot_be_trained_twice_at_once(session):
    run = session.train(10_000, background=True)
    with pytest.raises(RuntimeError, match="trains already"):
        session.train(1, background=True)
    run.pace.stop()
    run.wait(20)


def test_a_stop_before_the_first_step_holds(session, monkeypatch):
    live = session.live
    monkeypatch.setattr(live, "_train", lambda count: (live.pace.stop(), type(live)._train(live, count)))
    live.start(10_000).wait(20)
    assert live.status == "stopped" and session.trainer.step == 0


def test_waiting_has_an_end(session):
    run = session.train(10_000, background=True)
    with pytest.raises(TimeoutError, match="running at step"):
        run.wait(0.05)
    run.pace.stop()
    run.wait(20)


def test_an_interrupt_while_waiting_pauses_and_kills_nothing(session, monkeypatch, until):
    run = session.train(10_000, background=True)
    monkeypatch.setattr(run._thread, "join", lambda timeout=None: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        run.wait()
    monkeypatch.undo()
    until(lambda: run.status == "paused")
    run.pace.stop()
    run.wait(20)


def test_being_watched_does_not_change_the_run_by_one_bit(session):
    run = session.live.open()
    run.watch("me", ["token_strip", "expert_flow", "shadow_router", "residency", "offload_timeline"])
    for _ in session.train(6, progress=False):
        pass
    with Session(model="tiny", batch_size=1, sequence_length=16, seed=0) as other:
        for _ in other.train(6, progress=False):
            pass
        for (name, mine), theirs in zip(
            session.model.state_dict().items(), other.model.state_dict().values(), strict=True
        ):
            assert torch.equal(mine, theirs), name

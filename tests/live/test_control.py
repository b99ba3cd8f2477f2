"""The runtime's end of the wire: who may listen, who may command, and that nothing from outside harms a run."""

import socket
import threading
import time

import pytest

from workbench.hub.places import connection_files, read_connection
from workbench.hub.wire import pack


@pytest.fixture
def run(session):
    return session.live.open()


@pytest.fixture
def call(run, caller_of):
    return caller_of


def test_who_knows_the_secret_gets_everything_and_then_what_is_new(run, session, call):
    caller = call()
    assert caller.hear(lambda me: me.store.seq >= run.store.seq)
    assert caller.messages[0] == {"hello": 1, "id": run.run_id, "title": run.title}
    for _ in session.train(3, progress=False):
        pass
    assert run.outlet.settle() and caller.hear(lambda me: me.store.seq >= run.store.seq)
    assert caller.store.state["step"] == 3
    assert caller.store.since(0)[0] == run.store.since(0)[0]


def test_who_comes_back_gets_what_was_missed(run, session, call):
    first = call()
    assert first.hear(lambda me: me.store.seq >= run.store.seq)
    at = first.store.seq
    first.close()
    for _ in session.train(2, progress=False):
        pass
    assert run.outlet.settle()
    second = call(since=at)
    assert second.hear(lambda me: me.store.seq >= run.store.seq)
    assert second.store.since(0)[0] == run.store.since(at)[0]


@pytest.mark.parametrize("secret", ["", "wrong", None])
def test_who_does_not_know_the_secret_hears_nothing(run, call, secret):
    caller = call(secret="wrong" if secret is None else secret)
    assert caller.hear(lambda me: me.messages) is False
    assert caller.store.seq == 0


@pytest.mark.parametrize(
    "bytes_",
    [b"\xff" * 64, pack({"no": "hello"}), b"\x00\x00\x00\x7fJ", pack(b"frames"), b"\x02\x00\x00\x00J{]"],
    ids=["noise", "no hello", "too long", "frames", "no JSON"],
)
def test_who_does_not_speak_the_language_is_hung_up_on_and_others_are_not(run, call, bytes_):
    good, bad = call(), socket.socket(socket.AF_UNIX)
    bad.settimeout(10)
    bad.connect(read_connection(connection_files()[0]).socket)
    bad.sendall(bytes_)
    try:
        assert bad.recv(100) == b""
    except ConnectionError:
        pass
    bad.close()
    assert good.ask("set_rate", {"frames_per_second": 3})["status"] == "accepted"


def test_a_command_is_accepted_applied_and_told(run, call):
    caller = call()
    ack = caller.ask("swap_router", {"name": "switch"})
    assert (ack["status"], ack["code"], ack["step"]) == ("accepted", 202, 0)
    assert caller.hear(lambda me: me.commands().get("c1", {}).get("status") == "applied")
    record = caller.commands()["c1"]
    assert record["python"] == "session.swap_router('switch')" and record["actor"] == "ana"
    assert run.trainer.model.config.router.name == "switch"


def test_the_same_command_sent_twice_is_done_once(run, call):
    caller = call()
    first = caller.ask("annotate", {"text": "once"})
    assert caller.ask("annotate", {"text": "once"}) == first
    assert caller.ask("annotate", {"text": "other"})["code"] == 409
    run.desk.do(lambda: None)
    assert [event.op for event in run.trainer.state.events] == ["annotate"]


@pytest.mark.parametrize(
    ("op", "args", "code", "words"),
    [
        ("exec", {}, 422, "unknown command"),
        ("step", {"count": 0}, 422, "count"),
        ("swap_router", {"name": "os.system"}, 422, "name"),
        ("swap_router", {"name": "no_such"}, 422, "no router is called"),
        ("annotate", {"text": "x" * 501}, 422, "500"),
    ],
)
def test_what_is_not_in_the_list_is_refused_with_the_reason(run, call, op, args, code, words):
    ack = call().ask(op, args)
    assert (ack["status"], ack["code"]) == ("refused", code) and words in ack["reason"]
    assert not run.outlet.journal.records


def test_one_person_drives_and_another_takes_over(run, call):
    caller = call()
    assert caller.ask("pause", actor="ana", id="1")["code"] == 202
    refused = caller.ask("resume", actor="ben", id="2")
    assert refused["code"] == 403 and "driven by ana" in refused["reason"]
    assert caller.ask("resume", actor="teacher", id="3", is_broadcast=True)["code"] == 202
    assert caller.ask("take_over", actor="ben", id="4")["code"] == 202
    assert caller.hear(lambda me: me.store.state.get("driver") == "ben")
    assert caller.ask("resume", actor="ben", id="5")["code"] == 202
    assert caller.ask("pause", actor="ana", id="6")["code"] == 403


def test_a_pause_arrives_while_the_thread_that_trains_is_busy_elsewhere(run, session, call, until):
    caller, reports = call(), session.train(1000, progress=False)
    next(reports)
    ack = caller.ask("pause")
    assert ack["status"] == "accepted"
    until(lambda: run.pace.is_paused)
    threading.Timer(0.3, lambda: caller.ask("resume", id="c2")).start()
    began = time.monotonic()
    next(reports)
    assert time.monotonic() - began > 0.2
    reports.close()


def test_who_never_reads_harms_nobody(run, session, call):
    deaf = call()
    for _ in range(40):
        run.outlet.put("router_swap", bytes(2**20), step=0)
    good = call()
    assert good.hear(lambda me: me.store.seq >= run.store.seq)
    assert good.ask("annotate", {"text": "still here"})["status"] == "accepted"
    deaf.close()


def test_what_is_watched_is_what_all_hubs_watch_together(run, call, until):
    first, second = call(), call()
    first.say({"watching": {"topics": ["token_strip"], "viewers": 1}})
    second.say({"watching": {"topics": ["expert_flow", 7], "viewers": 2}})
    until(lambda: run.outlet._feed._watched == {"token_strip", "expert_flow"})
    second.close()
    until(lambda: run.outlet._feed._watched == {"token_strip"})


def test_the_last_word_reaches_the_hub_when_a_run_is_closed(run, session, call):
    caller = call()
    assert caller.hear(lambda me: me.store.seq >= run.store.seq)
    session.close()
    assert caller.hear(lambda me: me.store.state.get("status") == "finished")
    assert caller.hear(lambda me: False) is False

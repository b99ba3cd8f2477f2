"""Events wait for who takes them, but not for ever."""

import logging
import time

from workbench.core.records import ExpertKey
from workbench.offload.event_log import EventLog
from workbench.offload.loop import Happening


def log_of(most: int, count: int) -> EventLog:
    log = EventLog(lambda page: ExpertKey(*divmod(page, 4)), most=most)
    for number in range(count):
        log.note(Happening(time.perf_counter(), 7, number, "miss", 100, 0.5))
    return log


def test_events_are_taken_once_in_their_order():
    log = log_of(10, 6)
    events = log.take(3)
    assert [event.key for event in events] == [(0, 0), (0, 1), (0, 2), (0, 3), (1, 0), (1, 1)]
    assert {(event.step, event.token, event.kind, event.bytes, event.stall_seconds) for event in events} == {
        (3, 7, "miss", 100, 0.5)
    }
    assert abs(events[-1].time_ns - time.time_ns()) < 5e9
    assert log.take(4) == []


def test_the_oldest_go_and_it_is_said(caplog):
    log = log_of(4, 7)
    assert log.dropped == 3
    with caplog.at_level(logging.WARNING):
        assert [event.key.expert for event in log.take(2)] == [3, 0, 1, 2]
    assert "3 cache events went lost before step 2: nobody took them" in caplog.text
    caplog.clear()
    log.note(Happening(0.0, 0, 0, "hit", 0, 0.0))
    with caplog.at_level(logging.WARNING):
        assert len(log.take(3)) == 1
    assert caplog.text == "" and log.dropped == 3
    log.clear()
    assert log.dropped == 0


def test_what_is_cleared_is_no_loss(caplog):
    log = log_of(4, 7)
    log.clear()
    with caplog.at_level(logging.WARNING):
        assert log.take(0) == []
    assert caplog.text == "" and log.dropped == 0


def test_an_engine_that_nobody_asks_keeps_a_bounded_number(checkpoint, opened, steps):
    engine = opened(checkpoint(), budget="25%").engine
    assert engine.events._kept.maxlen == 100_000
    assert engine.loop.note == engine.events.note

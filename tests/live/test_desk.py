"""The desk: jobs are done between steps by whoever trains, or at once when nobody does."""

import threading
import time

import pytest

from workbench.live.desk import Desk


def test_a_job_is_done_at_once_when_nobody_trains():
    desk = Desk()
    assert desk.do(lambda: 7) == 7
    assert desk.submit(lambda: threading.current_thread().name).result(5) == "workbench idle"


def test_a_job_never_runs_inside_a_step_and_soon_after():
    desk, inside, seen, done = Desk(), threading.Event(), [], threading.Event()

    def train():
        while not done.is_set():
            desk.clear()
            with desk.turn():
                inside.set()
                time.sleep(0.02)
                inside.clear()

    thread = threading.Thread(target=train)
    thread.start()
    try:
        for _ in range(20):
            began = time.monotonic()
            seen.append(desk.do(inside.is_set))
            assert time.monotonic() - began < 2
    finally:
        done.set()
        thread.join()
    assert not any(seen)


def test_what_a_job_raises_is_raised_where_it_was_asked_for():
    with pytest.raises(ZeroDivisionError):
        Desk().do(lambda: 1 / 0)


def test_a_job_may_ask_for_another():
    desk = Desk()
    assert desk.do(lambda: desk.do(lambda: "inner")) == "inner"


def test_jobs_are_done_in_the_order_they_came():
    desk, order = Desk(), []
    with desk.turn():
        futures = [desk._put(lambda i=i: order.append(i)) for i in range(50)]
    desk.clear()
    assert order == list(range(50)) and all(future.done() for future in futures)


def test_waiting_ends_when_a_job_comes():
    desk, began = Desk(), time.monotonic()
    threading.Timer(0.05, desk.wake).start()
    desk.wait(10)
    assert time.monotonic() - began < 5

"""Who may touch the model, and what waits to be done to it: between two steps, or at once when nothing trains."""

import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any, TypeVar, final

__all__ = ["Desk"]

Result = TypeVar("Result")

# how soon somebody who waits for the model looks again whether it is free.
_LOOK_SECONDS = 0.01


@final
class Desk:
    """Jobs for the one model of a run, done one at a time and never in the middle of a step.

    Whoever trains holds a turn during a step and calls `clear` between steps. When nobody trains, whoever asks does
    the job.
    """

    def __init__(self) -> None:
        self._jobs: deque[tuple[Callable[[], Any], Future[Any]]] = deque()
        self._turn = threading.RLock()
        self._came = threading.Condition()

    @contextmanager
    def turn(self) -> Iterator[None]:
        """The model is one's own in here."""
        with self._turn:
            yield

    def submit(self, job: Callable[[], Result]) -> "Future[Result]":
        """Put a job on the desk; a helper thread does it when nobody trains."""
        future = self._put(job)
        threading.Thread(target=self._settle, args=(future,), name="workbench idle", daemon=True).start()
        return future

    def do(self, job: Callable[[], Result]) -> Result:
        """The result of a job, done between two steps, or now.

        Raises:
            BaseException: what the job raised.
        """
        future = self._put(job)
        self._settle(future)
        return future.result()

    def clear(self) -> None:
        """Do every job that waits; for whoever trains, between two steps."""
        while self._jobs:
            with self._turn:
                self._one()

    def wait(self, seconds: float) -> None:
        """Until a job comes, or the time is over."""
        with self._came:
            if not self._jobs:
                self._came.wait(seconds)

    def wake(self) -> None:
        """End a `wait`."""
        with self._came:
            self._came.notify_all()

    def _put(self, job: Callable[[], Result]) -> "Future[Result]":
        future: Future[Result] = Future()
        with self._came:
            self._jobs.append((job, future))
            self._came.notify_all()
        return future

    def _settle(self, future: "Future[Any]") -> None:
        while not future.done():
            if self._turn.acquire(timeout=_LOOK_SECONDS):
                try:
                    self._one()
                finally:
                    self._turn.release()

    def _one(self) -> None:
        try:
            job, future = self._jobs.popleft()
        except IndexError:
            return
        try:
            future.set_result(job())
        except BaseException as error:
            future.set_exception(error)

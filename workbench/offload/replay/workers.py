"""Passes over recorded requests on all cores: compiled counters on threads, everything else on processes."""

import multiprocessing
import signal
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from contextlib import ExitStack
from typing import Generic, TypeVar

from workbench.offload.requests import Requests

__all__ = ["Run", "run_all"]

Found = TypeVar("Found")


class Run(ABC, Generic[Found]):
    """One pass over the requests of a source; plain data, so that it can go to another process.

    Attributes:
        source: which requests.
        is_compiled: it lets go of the interpreter, so that threads suffice.
    """

    source: int
    is_compiled: bool

    @property
    @abstractmethod
    def size(self) -> int:
        """Cells of the sweep that it fills."""

    @abstractmethod
    def found_in(self, requests: Requests) -> Found:
        """What the pass finds."""


def run_all(
    sources: tuple[Requests, ...],
    runs: Sequence[Run[Found]],
    *,
    jobs: int,
    on_progress: Callable[[int, int], None] | None,
) -> Iterator[tuple[int, Found]]:
    """The place of every run and what it found, as they end.

    Args:
        sources: requests that runs choose from.
        jobs: processes or threads at a time; with 1 everything happens here.
        on_progress: called with cells done and to do.
    """
    total, done = sum(run.size for run in runs), 0
    for place, found in _here(sources, runs) if jobs == 1 else _beside(sources, runs, jobs):
        done += runs[place].size
        if on_progress is not None:
            on_progress(done, total)
        yield place, found


def _here(sources: tuple[Requests, ...], runs: Sequence[Run[Found]]) -> Iterator[tuple[int, Found]]:
    for place, run in enumerate(runs):
        yield place, run.found_in(sources[run.source])


def _beside(sources: tuple[Requests, ...], runs: Sequence[Run[Found]], jobs: int) -> Iterator[tuple[int, Found]]:
    slow = [place for place, run in enumerate(runs) if not run.is_compiled]
    with ExitStack() as stack:
        running: dict[Future[Found], int] = {}
        if slow:
            context = multiprocessing.get_context("spawn")
            processes = stack.enter_context(
                ProcessPoolExecutor(min(jobs, len(slow)), mp_context=context, initializer=_hold, initargs=(sources,))
            )
            stack.callback(_stop, processes)
            running |= {processes.submit(_found, runs[place]): place for place in slow}
        # the compiled counters let go of the interpreter: threads share the requests without a copy.
        threads = stack.enter_context(ThreadPoolExecutor(jobs))
        stack.callback(_stop, threads)
        for place, run in enumerate(runs):
            if run.is_compiled:
                running[threads.submit(run.found_in, sources[run.source])] = place
        for future in as_completed(running):
            yield running[future], future.result()


_REQUESTS: tuple[Requests, ...] = ()


def _hold(sources: tuple[Requests, ...]) -> None:
    """A worker gets the requests once, not with every run, and ends without a word where its parent is interrupted."""
    global _REQUESTS
    _REQUESTS = sources
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _found(run: Run[Found]) -> Found:
    return run.found_in(_REQUESTS[run.source])


def _stop(pool: Executor) -> None:
    pool.shutdown(wait=True, cancel_futures=True)

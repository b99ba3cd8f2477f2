"""The threads that read blocks of a store into slots."""

import heapq
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import final

from workbench.offload.store.expert_store import DamagedExpert, ExpertStore
from workbench.offload.tiers.link import Link, Traffic
from workbench.offload.tiers.pinned import HostMemory
from workbench.offload.tiers.pool import SlotPool

__all__ = ["DiskLink"]

_CHUNK_BYTES = 256 * 1024
_ATTEMPTS = 2


@dataclass
class _Job:
    page: int
    slot: int
    is_demand: bool
    done_bytes: int = 0
    is_running: bool = False
    is_called_off: bool = False
    is_done: bool = False
    error: Exception | None = None


@final
class DiskLink(Link):
    """Reads blocks of a store into slots, on threads of its own.

    A demanded expert is read whole, by the thread that waits for it if no other has begun: to wake one takes time,
    and who waits has nothing else to do. A guessed one is read in chunks, and only while nothing is demanded: a
    demand waits for one chunk at most, or for one block where blocks come through a buffer that others need
    too. What was read is checked before anybody may use it; a block that comes out wrong is read once more
    before it is an error.

    Args:
        threads: that read at the same time, beside the one that waits.
        before_fill: called by a reading thread with a slot that it is about to write to; it may wait there.
    """

    def __init__(
        self,
        store: ExpertStore,
        pool: SlotPool,
        *,
        threads: int = 2,
        before_fill: Callable[[int], None] = lambda slot: None,
    ):
        self.store, self.pool = store, pool
        self._jobs: dict[int, _Job] = {}
        self._queue: list[tuple[int, int, _Job]] = []
        self._ticket = 0
        self._moved, self._seconds = 0, 0.0
        self._moved_for: dict[int, int] = {}
        self._before_fill = before_fill
        self._changed = threading.Condition()
        self._is_closed = False
        self._reads_in_place = pool.device.type == "cpu" and store.shape.is_aligned
        # a GPU copies from them.
        is_pinned = pool.device.type == "cuda"
        self._buffers = [
            None if self._reads_in_place else HostMemory(store.shape.stride, is_pinned=is_pinned)
            for _ in range(threads)
        ]
        self._threads = [
            threading.Thread(target=self._work, args=(buffer,), name=f"workbench reader {number}", daemon=True)
            for number, buffer in enumerate(self._buffers)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def moved_bytes(self) -> int:
        """Bytes read so far [B]."""
        return self._moved

    def traffic(self) -> Mapping[str, Traffic]:
        """What went over each way so far."""
        return {"disk to device": Traffic(self._moved, self._seconds)}

    @property
    def buffer_bytes(self) -> int:
        """Memory of the buffers between disk and slots [B]."""
        return 0 if self._reads_in_place else len(self._threads) * self.store.shape.stride

    def now(self) -> float:
        """Seconds on the clock of this machine."""
        return time.perf_counter()

    def fetch(self, pages: Sequence[int], slots: Sequence[int], *, is_demand: bool) -> None:
        """Queue reads; demanded ones come first, in the order in which they were asked for.

        Raises:
            ValueError: the link is closed.
        """
        with self._changed:
            self._check_open()
            for page, slot in zip(pages, slots, strict=True):
                job = _Job(page, slot, is_demand)
                self._jobs[page] = job
                self._moved_for[page] = 0
                self._push(job)
            # all: who waits for a read listens here too, and would keep the call from a reader.
            self._changed.notify_all()

    def is_here(self, page: int) -> bool:
        """Whether nothing of this expert is on its way any more."""
        job = self._jobs.get(page)
        return job is None or (job.is_done and job.error is None)

    def bytes_of(self, page: int) -> int:
        """Bytes that the newest read of an expert took [B]."""
        return self._moved_for.get(page, 0)

    def wait(self, pages: Iterable[int]) -> dict[int, float]:
        """Wait for reads; one that was only guessed becomes a demand, and has another chance if it failed."""
        last = time.perf_counter()
        stalls: dict[int, float] = {}
        with self._changed:
            jobs = [job for page in pages if (job := self._jobs.get(page)) is not None]
            for job in jobs:
                if not job.is_demand:
                    job.is_demand = True
                    if job.error is not None:
                        job.is_done, job.error, job.done_bytes = False, None, 0
                    self._push(job)
            self._changed.notify_all()
            for job in jobs:
                while not job.is_done:
                    if not job.is_running:
                        self._check_open()
                        if self._reads_in_place:
                            job.is_running = True
                            self._changed.release()
                            try:
                                self._do(job, None)
                            finally:
                                self._changed.acquire()
                            continue
                    self._changed.wait()
                now = time.perf_counter()
                stalls[job.page], last = now - last, now
            for job in jobs:
                del self._jobs[job.page]
        for job in jobs:
            if job.error is not None:
                raise job.error
        return stalls

    def call_off(self, page: int) -> bool:
        """Stop a read, a guessed one between two chunks; False if it is here already."""
        with self._changed:
            job = self._jobs.get(page)
            if job is None or (job.is_done and job.error is None):
                return False
            job.is_called_off = True
            self._changed.wait_for(lambda: not job.is_running)
            self._jobs.pop(page, None)
            return not job.is_done or job.error is not None

    def settle(self) -> None:
        """Wait until nothing is on its way."""
        with self._changed:
            self._changed.wait_for(lambda: all(job.is_done for job in self._jobs.values()))

    def close(self) -> None:
        """End the threads; reads that have not begun are dropped, and guessed ones stop at a chunk."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()
        self._jobs.clear()

    def _check_open(self) -> None:
        if self._is_closed:
            raise ValueError("the reading threads have ended, so no expert can be brought; open the model again")

    def _push(self, job: _Job) -> None:
        self._ticket += 1
        heapq.heappush(self._queue, (0 if job.is_demand else 1, self._ticket, job))

    def _work(self, memory: HostMemory | None) -> None:
        buffer = None if memory is None else memory.view()
        while (job := self._take()) is not None:
            self._do(job, buffer)

    def _do(self, job: _Job, buffer: memoryview | None) -> None:
        """Read on for a job that this thread has taken, and say how it ended."""
        is_done = False
        try:
            is_done = self._read(job, buffer)
        except (OSError, ValueError, RuntimeError) as error:
            # of the third kind are the faults of a GPU.
            job.error, is_done = error, True
        finally:
            # an interrupt may end the read of a thread that waits.
            with self._changed:
                job.is_running = False
                if is_done:
                    job.is_done = True
                elif not job.is_called_off:
                    self._push(job)
                self._changed.notify_all()

    def _take(self) -> _Job | None:
        with self._changed:
            while not self._is_closed:
                while self._queue:
                    _, _, job = heapq.heappop(self._queue)
                    # a guess that became a demand stands in the queue twice.
                    if not (job.is_done or job.is_running or job.is_called_off):
                        job.is_running = True
                        return job
                self._changed.wait()
            return None

    def _read(self, job: _Job, buffer: memoryview | None) -> bool:
        """Read on; False if it stopped for somebody more urgent."""
        pieces = self.pool.memory(job.slot) if buffer is None else [buffer]
        if buffer is None:
            self._before_fill(job.slot)
        for attempt in range(_ATTEMPTS):
            try:
                if not self._read_chunks(job, pieces, keeps=buffer is None):
                    return False
                self.store.check(job.page, pieces)
                break
            except (OSError, DamagedExpert):
                # once more: a transient fault of the way is not yet a damaged file.
                job.done_bytes = 0
                if attempt == _ATTEMPTS - 1:
                    raise
        if buffer is not None:
            self._before_fill(job.slot)
            self.pool.put(job.slot, buffer)
        return True

    def _read_chunks(self, job: _Job, pieces: list[memoryview], *, keeps: bool) -> bool:
        if job.is_demand and job.done_bytes == 0:
            self._read_piece(job, pieces, 0)
            return True
        if not keeps:
            # the buffer has served others since.
            job.done_bytes = 0
        at = 0
        for piece in pieces:
            for start in range(0, len(piece), _CHUNK_BYTES):
                chunk = piece[start : start + _CHUNK_BYTES]
                if at >= job.done_bytes:
                    if self._must_stop(job, keeps=keeps):
                        return False
                    self._read_piece(job, [chunk], at)
                at += len(chunk)
        return True

    def _must_stop(self, job: _Job, *, keeps: bool) -> bool:
        """Whether a guess gives way. One that would lose what it has read only stops for good."""
        with self._changed:
            is_demanded = bool(self._queue) and self._queue[0][0] == 0
            return not job.is_demand and (job.is_called_off or self._is_closed or (keeps and is_demanded))

    def _read_piece(self, job: _Job, pieces: Sequence[memoryview], start: int) -> None:
        began = time.perf_counter()
        self.store.read(job.page, pieces, start)
        seconds, size = time.perf_counter() - began, sum(len(piece) for piece in pieces)
        with self._changed:
            job.done_bytes += size
            self._moved += size
            self._seconds += seconds
            self._moved_for[job.page] += size

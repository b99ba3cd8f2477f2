"""The thread that copies experts between host and device."""

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import final

from workbench.offload.tiers.link import Traffic
from workbench.offload.tiers.pool import SlotPool

__all__ = ["Move", "Mover"]


@dataclass(eq=False)
class Move:
    """A copy that is queued, runs, is done, or was called off.

    Args:
        is_up: from the host to the device; else down.
        slot: of the device.
        host_slot: of the host.
        is_demand: it must be, in its order.
    """

    is_up: bool
    slot: int
    host_slot: int
    is_demand: bool
    is_done: bool = False
    is_called_off: bool = False


@final
class Mover:
    """Copies between the slots of a device and those of the host, one at a time.

    What must be is done in the order in which it was asked for: so a slot may be given away as soon as the copy
    out of it is queued. Guesses wait until nothing else is to be done; the host's slot that a guess comes from must
    not be given away meanwhile. A demand waits for one guessed copy at most.

    Args:
        device: slots where experts compute.
        host: slots in memory, pinned if the device is a GPU.
    """

    def __init__(self, device: SlotPool, host: SlotPool):
        self.device, self.host = device, host
        self._due: deque[Move] = deque()
        self._guessed: deque[Move] = deque()
        self._running: Move | None = None
        self._num_bytes, self._seconds = {True: 0, False: 0}, {True: 0.0, False: 0.0}
        self._changed = threading.Condition()
        self._is_closed = False
        self._fault: RuntimeError | None = None
        self._thread = threading.Thread(target=self._work, name="workbench mover", daemon=True)
        self._thread.start()

    @property
    def moved_bytes(self) -> int:
        """Bytes copied so far, both ways [B]."""
        return sum(self._num_bytes.values())

    def traffic(self) -> Mapping[str, Traffic]:
        """What went over each way so far."""
        names = {True: "host to device", False: "device to host"}
        return {name: Traffic(self._num_bytes[is_up], self._seconds[is_up]) for is_up, name in names.items()}

    def save(self, slot: int, host_slot: int) -> None:
        """Queue a copy from a slot of the device into one of the host."""
        self._queue(Move(is_up=False, slot=slot, host_slot=host_slot, is_demand=True))

    def bring(self, host_slot: int, slot: int, *, is_demand: bool) -> Move:
        """Queue a copy from a slot of the host into one of the device."""
        return self._queue(Move(is_up=True, slot=slot, host_slot=host_slot, is_demand=is_demand))

    def wait(self, move: Move) -> None:
        """Wait for a copy; one that was only guessed becomes a demand.

        Raises:
            RuntimeError: the device failed.
            ValueError: the thread has ended.
        """
        with self._changed:
            if move in self._guessed:
                self._guessed.remove(move)
                self._due.append(move)
                self._changed.notify_all()
            self._wait_for(lambda: move.is_done)

    def call_off(self, move: Move) -> bool:
        """Stop a copy that has not begun; False if it is done, which one that has begun will be."""
        with self._changed:
            self._wait_for(lambda: move is not self._running)
            for queue in (self._due, self._guessed):
                if move in queue:
                    queue.remove(move)
            move.is_called_off = not move.is_done
            return move.is_called_off

    def wait_until_saved(self, slot: int) -> None:
        """Wait until no copy out of a slot of the device is to be done: then it may be overwritten."""
        with self._changed:
            self._wait_for(lambda: not any(not move.is_up and move.slot == slot for move in self._open()))

    def wait_until_filled(self, host_slot: int) -> None:
        """Wait until no copy into a slot of the host is to be done: then it may be read."""
        with self._changed:
            self._wait_for(lambda: not any(not move.is_up and move.host_slot == host_slot for move in self._open()))

    def settle(self) -> None:
        """Wait until nothing is to be done."""
        with self._changed:
            self._wait_for(lambda: not self._open())

    def close(self) -> None:
        """End the thread; copies that have not begun are dropped."""
        with self._changed:
            self._is_closed = True
            self._due.clear()
            self._guessed.clear()
            self._changed.notify_all()
        self._thread.join()

    def _open(self) -> list[Move]:
        return [*self._due, *self._guessed, *([] if self._running is None else [self._running])]

    def _queue(self, move: Move) -> Move:
        with self._changed:
            self._check()
            (self._due if move.is_demand else self._guessed).append(move)
            self._changed.notify_all()
        return move

    def _wait_for(self, is_so: Callable[[], bool]) -> None:
        while not is_so():
            self._check()
            self._changed.wait()

    def _check(self) -> None:
        if self._fault is not None:
            raise RuntimeError("experts could not be copied between host and device") from self._fault
        if self._is_closed:
            raise ValueError("the copying thread has ended, so no expert can be brought; open the model again")

    def _work(self) -> None:
        while (move := self._take()) is not None:
            began, fault = time.perf_counter(), None
            try:
                self._copy(move)
            except RuntimeError as error:
                # a fault of the device: nothing that is copied after it could be trusted.
                fault = error
            with self._changed:
                self._running, self._fault = None, fault
                if fault is None:
                    move.is_done = True
                    self._num_bytes[move.is_up] += self.device.shape.num_bytes
                    self._seconds[move.is_up] += time.perf_counter() - began
                self._changed.notify_all()
            if fault is not None:
                return

    def _take(self) -> Move | None:
        with self._changed:
            self._changed.wait_for(lambda: self._is_closed or self._due or self._guessed)
            if self._is_closed:
                return None
            self._running = (self._due or self._guessed).popleft()
            return self._running

    def _copy(self, move: Move) -> None:
        if move.is_up:
            self.device.copy(move.slot, self.host, move.host_slot)
        else:
            self.host.copy(move.host_slot, self.device, move.slot)

"""What is known of one run: its newest frames per topic, kept so that any viewer can catch up without a gap."""

import json
import threading
import time as clock
from bisect import bisect_right
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any, final

from workbench.hub.frames import DELTA, WHOLE, Frame, split_frames

__all__ = ["CAP_BYTES", "MAX_DELTAS", "MAX_DELTA_BYTES", "RunStore"]

MAX_DELTAS = 512
MAX_DELTA_BYTES = 4 * 2**20
CAP_BYTES = 32 * 2**20

_MEMOS = 16


@dataclass(frozen=True)
class _Kept:
    """A frame as it travels."""

    seq: int
    data: bytes


@dataclass
class _Topic:
    """The frames of a topic since its last whole one, oldest first."""

    kept: list[_Kept] = field(default_factory=list)
    num_bytes: int = 0
    starts_whole: bool = False
    is_dropped: bool = False

    @property
    def wants_whole(self) -> bool:
        first = self.kept[0] if self.starts_whole and self.kept else None
        deltas = len(self.kept) - (first is not None)
        delta_bytes = self.num_bytes - (len(first.data) if first is not None else 0)
        return self.is_dropped or deltas > MAX_DELTAS or delta_bytes > MAX_DELTA_BYTES


@final
class RunStore:
    """Source or mirror of a run's frames; safe to use from several threads.

    A whole frame drops every earlier frame of its topic, so what is kept is what a new viewer needs. When the cap is
    passed, the largest topic is dropped and takes no delta until its next whole frame; viewers keep what they have.

    Args:
        cap_bytes: the most that is kept.
    """

    def __init__(self, *, cap_bytes: int = CAP_BYTES) -> None:
        self.cap_bytes = cap_bytes
        self._topics: dict[str, _Topic] = {}
        self._seq = 0
        self._num_bytes = 0
        self._changed = threading.Condition()
        self._memo: dict[tuple[int, frozenset[str] | None, int | None], tuple[bytes, int]] = {}
        self._state: dict[str, Any] | None = None
        self._listeners: list[Callable[[], None]] = []

    @property
    def seq(self) -> int:
        """The number of the newest frame, 0 before the first."""
        return self._seq

    @property
    def num_bytes(self) -> int:
        """What is kept [byte]."""
        return self._num_bytes

    @property
    def state(self) -> dict[str, Any]:
        """The newest `state` of the run; empty before the first, and where that is no JSON object."""
        with self._changed:
            if self._state is None:
                kept = self._topics["state"].kept if "state" in self._topics else []
                self._state = _object(Frame.unpack(kept[-1].data)[0].payload) if kept else {}
            return self._state

    @property
    def topics(self) -> frozenset[str]:
        """Topics that have been published."""
        with self._changed:
            return frozenset(self._topics)

    def put(self, topic: str, payload: bytes, *, kind: int, step: int, time: float | None = None) -> int:
        """Publish; the frame's number, or 0 when it was a delta of a topic that waits for a whole frame.

        Raises:
            FrameError: a wrong topic or kind, or a payload over the limit.
        """
        produced = clock.time() if time is None else time
        with self._changed:
            frame = Frame(topic=topic, payload=payload, kind=kind, seq=self._seq + 1, step=step, time=produced)
            if kind == DELTA and self._is_dropped(topic):
                return 0
            self._keep(frame, frame.pack())
        self._announce()
        return frame.seq

    def insert(self, data: bytes) -> int:
        """Take over the frames of a message, except those that are here already; how many were new.

        Raises:
            FrameError: the bytes are no frames; those before the fault are kept.
        """
        fresh = 0
        try:
            with self._changed:
                for frame, own in split_frames(data):
                    if frame.seq > self._seq:
                        self._keep(frame, own)
                        fresh += 1
        finally:
            if fresh:
                self._announce()
        return fresh

    def since(
        self, seq: int, *, topics: Iterable[str] | None = None, limit_bytes: int | None = None
    ) -> tuple[bytes, int]:
        """What a viewer that has everything up to `seq` lacks, and the number up to which it then has everything.

        Viewers at the same place get the same bytes: they are joined once.

        Args:
            topics: only these; None for all.
            limit_bytes: stop after the frame that reaches this size; call again with the returned number.
        """
        wanted = None if topics is None else frozenset(topics)
        key = (seq, wanted, limit_bytes)
        with self._changed:
            if key not in self._memo:
                if len(self._memo) >= _MEMOS:
                    self._memo.clear()
                self._memo[key] = self._join(seq, wanted, limit_bytes)
            return self._memo[key]

    def needs_whole(self, topic: str) -> bool:
        """True when so many deltas wait behind the last whole frame that the source should publish a new one."""
        with self._changed:
            return topic in self._topics and self._topics[topic].wants_whole

    def wait(self, seq: int, timeout: float | None = None) -> bool:
        """Block until there is a frame after `seq`; False when the time [s] is over first."""
        with self._changed:
            return self._changed.wait_for(lambda: self._seq > seq, timeout)

    def listen(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call back after every change, on the thread that made it; the returned function ends that."""
        with self._changed:
            self._listeners = [*self._listeners, callback]

        def forget() -> None:
            with self._changed:
                self._listeners = [other for other in self._listeners if other is not callback]

        return forget

    def _announce(self) -> None:
        with self._changed:
            self._changed.notify_all()
            listeners = self._listeners
        for callback in listeners:
            callback()

    def _is_dropped(self, name: str) -> bool:
        return name in self._topics and self._topics[name].is_dropped

    def _keep(self, frame: Frame, data: bytes) -> None:
        topic = self._topics.setdefault(frame.topic, _Topic())
        self._seq = frame.seq
        self._memo.clear()
        if frame.topic == "state":
            self._state = None
        if frame.kind == WHOLE:
            self._clear(topic)
            topic.starts_whole, topic.is_dropped = True, False
        elif topic.is_dropped:
            return
        topic.kept.append(_Kept(frame.seq, data))
        topic.num_bytes += len(data)
        self._num_bytes += len(data)
        while self._num_bytes > self.cap_bytes:
            largest = max(self._topics.values(), key=attrgetter("num_bytes"))
            self._clear(largest)
            largest.is_dropped = True

    def _clear(self, topic: _Topic) -> None:
        self._num_bytes -= topic.num_bytes
        topic.kept, topic.num_bytes, topic.starts_whole = [], 0, False

    def _join(self, seq: int, wanted: frozenset[str] | None, limit: int | None) -> tuple[bytes, int]:
        missing: list[_Kept] = []
        for name, topic in self._topics.items():
            if wanted is None or name in wanted:
                missing += topic.kept[bisect_right(topic.kept, seq, key=attrgetter("seq")) :]
        missing.sort(key=attrgetter("seq"))
        parts, size = [], 0
        for kept in missing:
            parts.append(kept.data)
            size += len(kept.data)
            if limit is not None and size >= limit and kept is not missing[-1]:
                return b"".join(parts), kept.seq
        return b"".join(parts), max(seq, self._seq)


def _object(payload: bytes) -> dict[str, Any]:
    try:
        value = json.loads(payload, parse_constant=lambda name: None)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}

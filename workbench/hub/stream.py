"""Frames of one run to its viewers: joined once, newest first to matter, and nobody waits for a slow reader."""

import asyncio
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import Any, final

from workbench.hub.run_store import RunStore
from workbench.hub.schema import CommandError, shown

__all__ = ["ALWAYS", "FASTEST", "VIEW_TOPICS", "Fanout", "Sink", "Viewer"]

FASTEST = 20.0
"""Frames per second, at most."""

ALWAYS = frozenset({"state", "commands"})
VIEW_TOPICS = frozenset(
    {
        *("expert_effect", "expert_flow", "expert_load", "generation", "loss_curves", "offload_timeline", "residency"),
        *("router_swap", "shadow_router", "token_strip"),
    }
)
"""Topics of views; a runtime builds most of them only while somebody watches."""

_GRACE_SECONDS = 0.05
_GATHER_SECONDS = 0.003
_RETRY_SECONDS = 0.02
_TELL_SECONDS = 0.02
_STUCK_SECONDS = 20.0
_PART_BYTES = 2**20
_MOST_TOPICS = 32
_MOST_FRAMED = 16


class Sink(ABC):
    """Where the bytes of a viewer go."""

    @abstractmethod
    def write(self, data: bytes) -> None:
        """Send one message."""

    @abstractmethod
    def is_writing(self) -> bool:
        """True while an earlier message has not left."""

    @abstractmethod
    def close(self, code: int, reason: str) -> None:
        """End the connection and say why."""


@final
class Viewer:
    """One connection: what it has, what it wants, and how often.

    A topic that is wanted anew comes from its last whole frame on; a viewer drops frames that it has by their number.

    Args:
        since: the newest frame that the viewer has.
    """

    def __init__(self, sink: Sink, *, since: int = 0, now: float = 0.0) -> None:
        self.rate = FASTEST
        self._sink = sink
        self._cursor = since
        self._wanted: frozenset[str] | None = None
        self._missing: dict[str, int] = {}
        self._left: dict[str, int] = {}
        self._due = now + _GRACE_SECONDS
        self._has_asked = False
        self._stuck_since: float | None = None

    @property
    def watched(self) -> frozenset[str]:
        """Topics that this viewer looks at now: none while it is hidden."""
        if self.rate == 0:
            return frozenset()
        return VIEW_TOPICS if self._wanted is None else frozenset({*self._wanted, *self._missing})

    def ask(self, message: Mapping[str, Any], *, now: float) -> None:
        """Take a wish: `rate` in frames per second (0 while hidden), `topics` as a list, an object or null for all.

        An object says for each topic the newest frame that the viewer has of it.

        Raises:
            CommandError: 422, a wish that cannot be read.
        """
        unknown = set(message) - {"rate", "topics"}
        if unknown:
            raise CommandError(422, f"a viewer may ask for rate and topics, got {shown(sorted(unknown)[0])}")
        rate, topics = message.get("rate", self.rate), message.get("topics", ())
        if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 <= rate < math.inf:
            raise CommandError(422, f"rate must be a number of frames per second, 0 for none, got {shown(rate)}")
        if "topics" in message:
            self._choose(_read_topics(topics))
        self.rate = min(float(rate), FASTEST)
        if self.rate > 0:
            self._due = min(self._due, now + 1 / self.rate) if self._has_asked else now
        self._has_asked = True

    def advance(self, store: RunStore, framed: Callable[[bytes], bytes], *, now: float) -> float:
        """Send what is due; when to look again, infinity for not before the next change."""
        if self.rate == 0 or min(self._cursor, *self._missing.values(), math.inf) >= store.seq:
            return math.inf
        if now < self._due:
            return self._due
        if self._sink.is_writing():
            return self._wait_for_reader(now)
        self._stuck_since = None
        sent, is_complete = self._send(store, framed)
        if sent:
            self._due = now + 1 / self.rate
        return math.inf if is_complete else now + _RETRY_SECONDS

    def _send(self, store: RunStore, framed: Callable[[bytes], bytes]) -> tuple[bool, bool]:
        """Whether anything was sent, and whether everything was."""
        data, cursor = store.since(self._cursor, topics=self._wanted, limit_bytes=_PART_BYTES)
        if data:
            self._sink.write(framed(data))
        self._cursor, sent = cursor, bool(data)
        for topic in sorted(self._missing):
            if self._cursor < store.seq or self._sink.is_writing():
                return sent, False
            data, reached = store.since(self._missing[topic], topics=[topic], limit_bytes=_PART_BYTES)
            if data:
                self._sink.write(framed(data))
                sent = True
            self._missing[topic] = reached
            if reached >= self._cursor and self._wanted is not None:
                self._wanted |= {topic}
                del self._missing[topic]
        return sent, min(self._cursor, *self._missing.values(), math.inf) >= store.seq

    def _wait_for_reader(self, now: float) -> float:
        if self._stuck_since is None:
            self._stuck_since = now
        if now - self._stuck_since > _STUCK_SECONDS:
            self._sink.close(1013, f"nothing was read for {_STUCK_SECONDS:g} s; open the stream again")
            return math.inf
        return now + _RETRY_SECONDS

    def _choose(self, topics: Mapping[str, int | None] | None) -> None:
        """Change what is wanted; what leaves is remembered, what is new is caught up."""
        if topics is None:
            if self._wanted is not None:
                self._choose(dict.fromkeys(VIEW_TOPICS))
            return
        wanted = {**dict.fromkeys(ALWAYS), **topics}
        before = self._wanted
        for topic in self._left.keys() & wanted.keys():
            self._missing[topic] = self._left.pop(topic)
        if before is not None:
            self._left |= dict.fromkeys(before - wanted.keys(), self._cursor)
        self._left |= {topic: self._missing.pop(topic) for topic in list(self._missing) if topic not in wanted}
        for topic, has in wanted.items():
            if has is not None:
                self._missing[topic] = has
            elif before is not None and topic not in before and topic not in self._missing:
                self._missing[topic] = 0
        known = wanted.keys() if before is None else before & wanted.keys()
        self._wanted = frozenset(known - self._missing.keys())


def _read_topics(value: Any) -> Mapping[str, int | None] | None:
    """Topics with what the viewer has of each; None for all."""
    if value is None:
        return None
    is_table = isinstance(value, dict) and all(isinstance(seq, int) and 0 <= seq < 2**64 for seq in value.values())
    is_list = isinstance(value, list) and all(isinstance(topic, str) for topic in value)
    if not (is_table or is_list) or len(value) > _MOST_TOPICS or any(len(topic) > 64 for topic in value):
        raise CommandError(422, f"topics must be at most {_MOST_TOPICS} names, or null for all, got {shown(value)}")
    return value if isinstance(value, dict) else dict.fromkeys(value)


@final
class Fanout:
    """The viewers of one run.

    Args:
        store: what they see.
        frame_message: bytes as a WebSocket sends them, made once for all viewers at the same place.
        on_watch: called with the watched topics and the number of viewers soon after that may have changed.
    """

    def __init__(
        self,
        store: RunStore,
        *,
        frame_message: Callable[[bytes], bytes],
        on_watch: Callable[[Iterable[str], int], None],
    ) -> None:
        self._store = store
        self._frame_message = frame_message
        self._on_watch = on_watch
        self._viewers: dict[Viewer, None] = {}
        self._framed: dict[int, tuple[bytes, bytes]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._teller: asyncio.TimerHandle | None = None
        self._forget = store.listen(self._gather)

    @property
    def num_viewers(self) -> int:
        """Open connections."""
        return len(self._viewers)

    def join(self, sink: Sink, *, since: int) -> Viewer:
        """A new viewer; it gets what it lacks after a moment, or as soon as it says what it wants."""
        viewer = Viewer(sink, since=since, now=asyncio.get_running_loop().time())
        self._viewers[viewer] = None
        self._tell_soon()
        self._serve(viewer)
        return viewer

    def ask(self, viewer: Viewer, message: Mapping[str, Any]) -> None:
        """Pass on what a viewer wants.

        Raises:
            CommandError: 422, a wish that cannot be read.
        """
        viewer.ask(message, now=asyncio.get_running_loop().time())
        self._tell_soon()
        self._serve(viewer)

    def leave(self, viewer: Viewer) -> None:
        """Forget a viewer whose connection ended."""
        if viewer in self._viewers:
            del self._viewers[viewer]
            self._tell_soon()

    def close(self) -> None:
        """Stop; no viewer hears anything any more."""
        self._forget()
        for timer in (self._timer, self._teller):
            if timer is not None:
                timer.cancel()

    def _tell_soon(self) -> None:
        """Say what is watched, once for all who come and go together."""
        if self._teller is None:
            self._teller = asyncio.get_running_loop().call_later(_TELL_SECONDS, self._tell)

    def _tell(self) -> None:
        self._teller = None
        self._on_watch({topic for viewer in self._viewers for topic in viewer.watched}, len(self._viewers))

    def _gather(self) -> None:
        """Frames that are published together travel together."""
        self._schedule(asyncio.get_running_loop().time() + _GATHER_SECONDS)

    def _serve(self, viewer: Viewer) -> None:
        """Send what one viewer is due; the others have no part in it."""
        self._schedule(viewer.advance(self._store, self._frame, now=asyncio.get_running_loop().time()))

    def _schedule(self, when: float) -> None:
        if when == math.inf:
            return
        if self._timer is not None:
            if self._timer.when() <= when:
                return
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_at(when, self._tick)

    def _tick(self) -> None:
        self._timer = None
        now, again = asyncio.get_running_loop().time(), math.inf
        self._framed.clear()
        for viewer in list(self._viewers):
            again = min(again, viewer.advance(self._store, self._frame, now=now))
        self._schedule(again)

    def _frame(self, data: bytes) -> bytes:
        """The message of these bytes, made once while they are the same object."""
        known = self._framed.get(id(data))
        if known is None:
            if len(self._framed) >= _MOST_FRAMED:
                self._framed.clear()
            known = self._framed[id(data)] = (data, self._frame_message(data))
        return known[1]

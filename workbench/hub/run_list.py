"""The list of runs to everybody who has it open, on every change and at most twice a second."""

import asyncio
import json
from collections.abc import Callable
from typing import Any, final

from workbench.hub.stream import Sink

__all__ = ["RunList"]

_PAUSE_SECONDS = 0.5


@final
class RunList:
    """Viewers of the list of runs.

    Args:
        runs: the runs that a person may see.
        frame_message: text as a WebSocket sends it.
    """

    def __init__(self, runs: Callable[[str], list[dict[str, Any]]], *, frame_message: Callable[[bytes], bytes]) -> None:
        self._runs = runs
        self._frame_message = frame_message
        self._viewers: dict[Sink, tuple[str, bytes]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._earliest = 0.0

    @property
    def num_viewers(self) -> int:
        """Open connections."""
        return len(self._viewers)

    def join(self, sink: Sink, user: str) -> None:
        """Send the list now, and again when it changes."""
        self._viewers[sink] = (user, b"")
        self._send(sink, {})

    def leave(self, sink: Sink) -> None:
        """Forget a viewer whose connection ended."""
        self._viewers.pop(sink, None)

    def changed(self) -> None:
        """Something about some run is different now."""
        if self._viewers and self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_at(max(self._earliest, loop.time()), self._tick)

    def close(self) -> None:
        """Stop; no viewer hears anything any more."""
        if self._timer is not None:
            self._timer.cancel()

    def _tick(self) -> None:
        self._timer = None
        self._earliest = asyncio.get_running_loop().time() + _PAUSE_SECONDS
        messages: dict[str, bytes] = {}
        late = [sink for sink in list(self._viewers) if not self._send(sink, messages)]
        if late:
            self.changed()

    def _send(self, sink: Sink, messages: dict[str, bytes]) -> bool:
        """Send what differs from what was sent last; False when the viewer has not read that yet."""
        if sink.is_writing():
            return False
        user, last = self._viewers[sink]
        if user not in messages:
            messages[user] = self._frame_message(json.dumps({"runs": self._runs(user)}).encode())
        if messages[user] != last:
            self._viewers[sink] = (user, messages[user])
            sink.write(messages[user])
        return True

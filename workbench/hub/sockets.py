"""The WebSocket routes of the hub: the stream of a run, and the list of runs."""

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, final

from tornado.ioloop import IOLoop
from tornado.iostream import StreamClosedError
from tornado.web import HTTPError, authenticated
from tornado.websocket import WebSocketHandler

from workbench.hub.hub import Hub
from workbench.hub.schema import CommandError, parse_json
from workbench.hub.stream import Sink, Viewer

__all__ = ["SOCKETS", "SocketMixin"]

_LARGEST_WISH_BYTES = 4096
_MOST_WISHES, _WISH_SECONDS = 50, 10.0
_CLOSE_SECONDS = 2.0
_POLICY, _TRY_LATER = 1008, 1013


class SocketMixin(WebSocketHandler):
    """What both share: who asks, room on the server, small messages, and a connection that never blocks anybody."""

    def initialize(self, hub: Hub, user_of: Callable[[Any], str]) -> None:
        """Called by tornado with the arguments of the route."""
        self.hub = hub
        self._user_of = user_of
        self._wishes: deque[float] = deque(maxlen=_MOST_WISHES)

    @property
    def user(self) -> str:
        """Who asks."""
        return self._user_of(self.current_user)

    @property
    def max_message_size(self) -> int:
        """A viewer says little [byte]."""
        return _LARGEST_WISH_BYTES

    @authenticated
    async def get(self, *args: str) -> None:  # type: ignore[override]
        """Open the connection, or say why not."""
        await super().get(*args)

    def write_ready(self, data: bytes) -> None:
        """Send a message that is framed already."""
        if self.ws_connection is not None and self.ws_connection.stream is not None:
            with suppress(StreamClosedError):
                self.ws_connection.stream.write(data)

    def is_writing(self) -> bool:
        """True while an earlier message has not left."""
        stream = None if self.ws_connection is None else self.ws_connection.stream
        return stream is not None and stream.writing()

    def turn_away(self, code: int, reason: str) -> None:
        """Close and say why; a viewer who does not even read that is cut off."""
        stream = None if self.ws_connection is None else self.ws_connection.stream
        self.close(code, reason[:120])
        if stream is not None:
            IOLoop.current().call_later(_CLOSE_SECONDS, stream.close)

    def is_flooding(self) -> bool:
        """Note one more message; True when there are too many."""
        now = IOLoop.current().time()
        self._wishes.append(now)
        return len(self._wishes) == _MOST_WISHES and now - self._wishes[0] < _WISH_SECONDS


@final
class _Sink(Sink):
    """A socket as the store's fan-out sees it."""

    def __init__(self, socket: SocketMixin) -> None:
        self._socket = socket

    def write(self, data: bytes) -> None:
        """Send one message that is framed already."""
        self._socket.write_ready(data)

    def is_writing(self) -> bool:
        """True while an earlier message has not left."""
        return self._socket.is_writing()

    def close(self, code: int, reason: str) -> None:
        """End the connection and say why."""
        self._socket.turn_away(code, reason)


class RunSocket(SocketMixin):
    """The frames of a run as they come."""

    _viewer: Viewer | None = None

    @authenticated
    async def get(self, run_id: str) -> None:  # type: ignore[override]
        """Open the stream; 404 without such a run, 400 without a number in `since`."""
        since = self.get_query_argument("since", "0")
        if not (since.isascii() and since.isdecimal()) or len(since) > 18:
            raise HTTPError(400, "since must be the number of a frame")
        try:
            self._fanout = self.hub.fanout(run_id, self.user)
        except CommandError as error:
            raise HTTPError(error.code, error.reason) from error
        self._since = int(since)
        await super().get(run_id)  # type: ignore[misc]

    def open(self, run_id: str) -> None:
        """Join the viewers, if there is room."""
        super().open(run_id)
        self.set_nodelay(True)
        try:
            self.hub.check_room()
        except CommandError as error:
            self.turn_away(_TRY_LATER, error.reason)
            return
        self._viewer = self._fanout.join(_Sink(self), since=self._since)

    def on_message(self, message: str | bytes) -> None:
        """Take a wish: `rate` and `topics`."""
        if self._viewer is None:
            return
        body = message.encode() if isinstance(message, str) else message
        try:
            if self.is_flooding():
                raise CommandError(429, f"at most {_MOST_WISHES} wishes in {_WISH_SECONDS:g} s")
            self._fanout.ask(self._viewer, parse_json(body))
        except CommandError as error:
            self.turn_away(_POLICY, error.reason)

    def on_close(self) -> None:
        """Leave the viewers."""
        if self._viewer is not None:
            self._fanout.leave(self._viewer)
        super().on_close()


class ListSocket(SocketMixin):
    """The list of runs, on every change."""

    _sink: _Sink | None = None

    def open(self) -> None:
        """Send the list, if there is room."""
        super().open()
        try:
            self.hub.check_room()
        except CommandError as error:
            self.turn_away(_TRY_LATER, error.reason)
            return
        self._sink = _Sink(self)
        self.hub.run_list.join(self._sink, self.user)

    def on_message(self, message: str | bytes) -> None:
        """There is nothing to ask for."""
        if self.is_flooding():
            self.turn_away(_POLICY, "the list of runs takes no messages")

    def on_close(self) -> None:
        """Leave the viewers."""
        if self._sink is not None:
            self.hub.run_list.leave(self._sink)
        super().on_close()


SOCKETS: dict[str, type[SocketMixin]] = {"runs/stream": ListSocket, "runs/([^/]+)/stream": RunSocket}
"""Routes below the API's address."""

"""The routes of the hub for a server: its own way to know who asks, and ours to answer."""

import re
from collections.abc import Callable
from typing import Any

from tornado.web import RequestHandler
from tornado.websocket import WebSocketHandler

from workbench.hub.hub import Hub
from workbench.hub.rest import REST
from workbench.hub.sockets import SOCKETS

__all__ = ["API", "Route", "routes"]

API = "/workbench/api/v1"

Route = tuple[str, type[RequestHandler], dict[str, Any]]


def routes(
    base: type[RequestHandler],
    socket_base: type[WebSocketHandler],
    hub: Hub,
    *,
    user_of: Callable[[Any], str] = str,
    prefix: str = "",
) -> list[Route]:
    """Patterns, handlers and their arguments, for `tornado.web.Application`.

    Args:
        base: sets `current_user` from what the request carries, and refuses what must be refused.
        socket_base: the same for WebSockets.
        user_of: the name of a `current_user`.
        prefix: the server's base URL, without its last slash.
    """
    arguments = {"hub": hub, "user_of": user_of}
    at = re.escape(prefix) + API
    sockets = [(f"{at}/{path}", _over(mixin, socket_base), arguments) for path, mixin in SOCKETS.items()]
    rest = [(f"{at}/{path}", _over(mixin, base), arguments) for path, mixin in REST.items()]
    # `runs/stream` must be tried before the run of that name.
    return [*sockets, *rest]


def _over(mixin: type[RequestHandler], base: type[RequestHandler]) -> type[RequestHandler]:
    """A handler with the answers of the mixin and the log-in of the base."""
    return type(mixin.__name__, (mixin, base), {"__doc__": mixin.__doc__, "__module__": mixin.__module__})

"""One process for page and hub: on a port of this machine with a token, or on a Unix socket behind Jupyter."""

import asyncio
import getpass
import ipaddress
import secrets
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from panel.io.server import get_server
from tornado.web import RequestHandler

from workbench.hub.access import LOCAL_HOSTS, LOGIN, Access, token_bases
from workbench.hub.children import Caps
from workbench.hub.handlers import API, routes
from workbench.hub.hub import Hub
from workbench.hub.roles import Rules
from workbench.view.dashboard.access import (
    LOGIN_PAGE,
    SocketHandler,
    SocketStream,
    StayHome,
    TokenAuth,
    WelcomeHandler,
)
from workbench.view.dashboard.page import TITLE, make_page

__all__ = ["Place", "run_app"]

Route = tuple[str, type[RequestHandler]]

# Servers of one host share cookies whatever their port; Jupyter's own has the name `_xsrf`.
_XSRF = "workbench_xsrf"
_LARGEST_MESSAGE_BYTES = 2**20


@final
@dataclass(frozen=True, kw_only=True)
class Place:
    """Where the app listens, and who may come.

    Attributes:
        port: 0 for any that is free.
        token: of at least 8 characters; "" makes one.
        address: other than this machine's own only with `is_open`.
        is_open: other machines may connect, without encryption.
        unix_socket: instead of a port; whoever can open it is the owner.
        prefix: path below which a proxy shows the app, without its last slash.

    Raises:
        ValueError: an address that others can reach, without `is_open`.
    """

    port: int = 0
    token: str = ""
    address: str = "127.0.0.1"
    is_open: bool = False
    unix_socket: Path | None = None
    prefix: str = ""

    def __post_init__(self) -> None:
        if not self.is_open and not _is_local(self.address):
            raise ValueError(
                f"address must be this machine's own, got {self.address}; other machines would send the token "
                "unencrypted: use a proxy with TLS or an SSH tunnel, or add --open if the network is yours"
            )


def _is_local(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"


async def run_app(
    place: Place, *, on_ready: Callable[[str], None], hub: Hub | None = None, stop: asyncio.Event | None = None
) -> None:
    """Serve until interrupted.

    Args:
        on_ready: called with the address to open, its token included; with the socket's path on a Unix socket.
        hub: the runs; a hub of this user's runs by default.
        stop: ends it too.

    Raises:
        OSError: the port or the socket is taken.
    """
    owner = getpass.getuser()
    hub = hub or Hub(rules=Rules(owner=owner), caps=Caps(), name="app")
    stop = stop or asyncio.Event()
    token = place.token or secrets.token_urlsafe(24)
    server = _build(place, token, owner, hub)
    _end_with_signals(stop)
    await hub.start()
    server.start()
    try:
        on_ready(_address(place, server, token))
        await stop.wait()
    finally:
        server.stop()
        await hub.stop()
        server.unlisten()


def _build(place: Place, token: str, owner: str, hub: Hub) -> Any:
    base, socket_base, extra = _handlers(place, token, owner)
    handlers = [*routes(base, socket_base, hub), *extra]

    def page() -> Any:
        # Panel calls plain functions only, and shows anything else as it is.
        return make_page(api=f"{place.prefix}{API}", xsrf=_XSRF)

    where: dict[str, Any] = {"unix_socket": str(place.unix_socket)}
    origins = ["*"]
    if place.unix_socket is None:
        # Bokeh compares the origin of its socket with names that hold the port, so the port must be known before.
        where = {"port": place.port or _free_port(place.address), "address": place.address}
        origins = ["*"] if place.is_open else [f"{host}:{where['port']}" for host in ("127.0.0.1", "localhost")]
    return get_server(
        {"/": page},
        title=TITLE,
        prefix=place.prefix,
        extra_patterns=handlers,
        auth_provider=TokenAuth(base),
        # The shell's socket carries no runs and takes no commands; behind a proxy its origin is the proxy's to compare.
        websocket_origin=origins,
        websocket_max_message_size=_LARGEST_MESSAGE_BYTES,
        # Neither headers nor cookies go into the session token that the page carries.
        include_headers=[],
        include_cookies=[],
        transforms=[StayHome],
        xsrf_cookie_name=_XSRF,
        location=False,
        **where,
    )


def _handlers(
    place: Place, token: str, owner: str
) -> tuple[type[Any], type[Any], list[tuple[str, type[RequestHandler]]]]:
    """The bases of the hub's routes, and the routes around them."""
    if place.unix_socket is not None:
        bound = {"access": Access({token: owner}, hosts=None), "owner": owner}
        return type("Local", (SocketHandler,), bound), type("LocalStream", (SocketStream,), bound), []
    hosts = None if place.is_open else LOCAL_HOSTS
    base, socket_base, login = token_bases(Access({token: owner}, hosts=hosts))
    return base, socket_base, [(LOGIN, login), (LOGIN_PAGE, WelcomeHandler)]


def _free_port(address: str) -> int:
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as probe:
        probe.bind((address, 0))
        port: int = probe.getsockname()[1]
        return port


def _address(place: Place, server: Any, token: str) -> str:
    if place.unix_socket is not None:
        return str(place.unix_socket)
    host = f"[{place.address}]" if ":" in place.address else place.address
    return f"http://{host}:{server.port}{place.prefix}/?token={token}"


def _end_with_signals(stop: asyncio.Event) -> None:
    for name in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(name, stop.set)

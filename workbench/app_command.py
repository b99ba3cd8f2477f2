"""`workbench app`: the dashboard in a browser, on this machine or behind Jupyter."""

import argparse
import asyncio
import sys
import webbrowser
from importlib import import_module
from pathlib import Path
from typing import Any

__all__ = ["app", "app_parser"]


def app_parser(parser: argparse.ArgumentParser) -> None:
    """The options of the command; `options.run` does it."""
    parser.add_argument("--port", type=int, default=0, help="any free one by default")
    parser.add_argument("--token", default="", help="at least 8 characters; a random one by default")
    parser.add_argument("--no-browser", action="store_true", help="only print the address")
    parser.add_argument("--address", default="127.0.0.1", help="where to listen; others than this machine need --open")
    parser.add_argument("--open", action="store_true", help="let other machines connect, without encryption")
    parser.add_argument("--unix-socket", type=Path, help="instead of a port, for a proxy that knows who asks")
    parser.add_argument("--prefix", default="", help="path below which the proxy shows the app")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> None:
    app(
        port=options.port,
        token=options.token,
        address=options.address,
        is_open=options.open,
        unix_socket=options.unix_socket,
        prefix=options.prefix,
        browser=not options.no_browser,
    )


def app(
    *, port: int, token: str, address: str, is_open: bool, unix_socket: Path | None, prefix: str, browser: bool
) -> None:
    """Serve the dashboard until interrupted; the arguments are those of `workbench.view.dashboard.Place`.

    Args:
        browser: open it; a Unix socket is opened by its proxy.

    Raises:
        ValueError: an address that others can reach, or a token that can be guessed.
        OSError: the port or the socket is taken.
        ModuleNotFoundError: Panel is not installed.
    """
    server = _server()
    place = server.Place(
        port=port, token=token, address=address, is_open=is_open, unix_socket=unix_socket, prefix=prefix.rstrip("/")
    )

    def ready(address: str) -> None:
        sys.stdout.write(f"workbench app: {address}\n")
        sys.stdout.flush()
        if browser and unix_socket is None:
            webbrowser.open(address)

    asyncio.run(server.run_app(place, on_ready=ready))


def _server() -> Any:
    try:
        return import_module("workbench.view.dashboard.server")
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("workbench"):
            raise
        raise ModuleNotFoundError(
            f"the dashboard needs {error.name}, which is not installed: pip install 'moe-workbench[app]'",
            name=error.name,
        ) from error

"""The hub on a plain tornado server: `python tests/hub/dev_server.py --port 8899 --token secret-token`."""

import argparse
import asyncio
import secrets
import sys
from pathlib import Path

from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application, StaticFileHandler

from workbench.hub.access import LOGIN, Access, token_bases
from workbench.hub.children import Caps
from workbench.hub.handlers import API, routes
from workbench.hub.hub import Hub
from workbench.hub.roles import Rules


async def serve(*, port, tokens, files=None, instructors=()):
    """A running server and its hub."""
    is_shared = len(tokens) > 1
    rules = Rules(owner=next(iter(tokens.values())), is_shared=is_shared, instructors=frozenset(instructors))
    hub = Hub(rules=rules, caps=Caps())
    base, socket_base, login = token_bases(Access(tokens))
    handlers = [*routes(base, socket_base, hub), (LOGIN, login)]
    if files is not None:
        handlers.append((r"/(.*)", StaticFileHandler, {"path": str(files), "default_filename": "index.html"}))
    server = HTTPServer(Application(handlers))
    server.add_sockets(bind_sockets(port, "127.0.0.1"))
    await hub.start()
    return server, hub


async def main():
    parser = argparse.ArgumentParser(description="The hub for development.")
    parser.add_argument("--port", type=int, default=8899)
    parser.add_argument("--token", action="append", help="TOKEN or TOKEN=USER; several make a shared server")
    parser.add_argument("--instructor", action="append", default=[])
    parser.add_argument("--files", type=Path, help="a folder to serve beside the API")
    options = parser.parse_args()
    given = options.token or [secrets.token_urlsafe(16)]
    tokens = {token: user or "me" for token, _, user in (text.partition("=") for text in given)}
    _, hub = await serve(port=options.port, tokens=tokens, files=options.files, instructors=options.instructor)
    for token, user in tokens.items():
        sys.stdout.write(f"{user}: http://127.0.0.1:{options.port}{LOGIN}?token={token}&next={API}/runs\n")
    sys.stdout.flush()
    try:
        await asyncio.Event().wait()
    finally:
        await hub.stop()


if __name__ == "__main__":
    asyncio.run(main())

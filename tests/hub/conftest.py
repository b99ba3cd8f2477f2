"""An invented run, a hub on a plain tornado server, and people who ask it."""

import asyncio
import importlib.util
import json
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from tornado.httpclient import AsyncHTTPClient, HTTPRequest
from tornado.httpserver import HTTPServer
from tornado.testing import bind_unused_port
from tornado.web import Application
from tornado.websocket import websocket_connect

from workbench.hub.access import LOGIN, Access, token_bases
from workbench.hub.frames import split_frames
from workbench.hub.handlers import API, routes
from workbench.hub.hub import Hub
from workbench.hub.roles import Rules

TOKENS = {"token-of-ana": "ana", "token-of-bob": "bob", "token-of-ida": "ida"}


def load(name: str, path: Path) -> Any:
    """A module beside the tests, which are no package."""
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def FakeRuntime() -> type:
    """The invented run, as a class."""
    return load("fake_runtime", Path(__file__).with_name("fake_runtime.py")).FakeRuntime


@pytest.fixture
def folder(tmp_path) -> Path:
    """A folder of connection files."""
    return tmp_path / "w"


@pytest.fixture(name="until")
def until_fixture() -> Callable[..., Any]:
    """Waits for a condition."""
    return until


@pytest.fixture(name="frames_of")
def frames_of_fixture() -> Callable[..., Any]:
    """Reads the frames of the next message."""
    return frames_of


async def until(condition: Callable[[], Any], seconds: float = 10.0) -> Any:
    """The first true value of a condition."""
    for _ in range(int(seconds / 0.01)):
        if value := condition():
            return value
        await asyncio.sleep(0.01)
    raise AssertionError(f"not within {seconds} s: {condition}")


class Server:
    """A hub on a port, and the requests of people to it."""

    def __init__(self, hub: Hub, port: int) -> None:
        self.hub, self.port, self.pages = hub, port, []
        self.address = f"http://127.0.0.1:{port}"

    async def ask(self, path, *, token="token-of-ana", body=None, method=None, headers=None, raw=False):
        """Code and JSON of an answer; bytes when asked for raw."""
        own = {} if token is None else {"Authorization": f"token {token}"}
        data = json.dumps(body).encode() if isinstance(body, dict | list) else body
        request = HTTPRequest(
            path if path.startswith("http") else self.address + API + path,
            method=method or ("GET" if body is None else "POST"),
            headers={**own, **(headers or {})},
            body=data,
            follow_redirects=False,
        )
        answer = await AsyncHTTPClient(force_instance=True).fetch(request, raise_error=False)
        if raw:
            return answer
        is_json = answer.headers.get("Content-Type", "").startswith("application/json")
        return answer.code, json.loads(answer.body) if is_json and answer.body else {}

    async def watch(self, path, *, token="token-of-ana", headers=None):
        """An open WebSocket."""
        own = {} if token is None else {"Authorization": f"token {token}"}
        url = f"ws://127.0.0.1:{self.port}{API}{path}"
        page = await websocket_connect(HTTPRequest(url, headers={**own, **(headers or {})}))
        self.pages.append(page)
        return page

    async def leave(self):
        """Close every page."""
        for page in self.pages:
            page.close()
        await asyncio.sleep(0.02)

    async def command(self, run, op, *, id="c-1", token="token-of-ana", **args):
        """Code and acknowledgement of a command."""
        return await self.ask(f"/runs/{run}/commands", token=token, body={"id": id, "op": op, "args": args})


async def frames_of(socket, seconds: float = 5.0):
    """The frames of the next message."""
    message = await asyncio.wait_for(socket.read_message(), seconds)
    assert message is not None, f"closed: {socket.close_code} {socket.close_reason}"
    return [frame for frame, _ in split_frames(message)]


@pytest.fixture
def serve(folder, FakeRuntime):
    """Starts a hub on a port, with runs of the given owners, all in one loop."""

    @asynccontextmanager
    async def start(*owners, rules=None, tokens=TOKENS, access=None, **options) -> AsyncIterator[Server]:
        known = access or Access(tokens)
        async with AsyncExitStack() as stack:
            runs = []
            for owner in owners:
                runtime = FakeRuntime(folder=folder, owner=owner.rstrip("*"), shared=owner.endswith("*"))
                await runtime.start()
                runs.append(runtime)
                stack.push_async_callback(end, runtime)
            hub = Hub(rules=rules or Rules(owner="ana"), folder=folder, scan_seconds=0.05, **options)
            await hub.start()
            stack.push_async_callback(hub.stop)
            base, socket_base, login = token_bases(known)
            server = HTTPServer(Application([*routes(base, socket_base, hub), (LOGIN, login)]))
            sock, port = bind_unused_port(address="127.0.0.1")
            server.add_sockets([sock])
            stack.push_async_callback(close, server)
            served = Server(hub, port)
            served.runs = runs
            stack.push_async_callback(served.leave)
            await until(lambda: all(hub.link(run.id, run.state["owner"]).is_connected for run in runs))
            yield served

    return start


async def end(runtime) -> None:
    """Close a run that may be closed already."""
    with suppress(FileNotFoundError):
        await runtime.close()
    await asyncio.sleep(0)


async def close(server: HTTPServer) -> None:
    """Stop a server and its connections."""
    server.stop()
    await server.close_all_connections()

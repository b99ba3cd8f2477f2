"""A hub with invented runs in a thread of this process, and pages on it: what the tests of live views stand on."""

import asyncio
import functools
import json
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable
from contextlib import suppress
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

from workbench.view.bundle import view_module

TOKEN = "browser-tests"
HUB_TESTS = Path(__file__).parent.parent / "hub"

PAGE = """<!doctype html><html lang="en"><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1"><title>host</title><link rel="icon" href="data:,">
<body><main id="host"></main><script type="module">
const query = new URLSearchParams(location.search);
document.body.style = `margin: 8px; background: ${query.get("dark") ? "#101418" : "#ffffff"}`;
const view = (await import(query.get("host") === "home" ? "./home.mjs" : "./live.mjs")).default;
const listeners = {};
const known = { run_id: query.get("id") ?? "", views: query.getAll("view") };
const traits = { api: "/workbench/api/v1", token: "", selection: {}, ...known };
window.model = {
  get: (name) => traits[name],
  set: (name, value) => { traits[name] = value; (listeners["change:" + name] || []).forEach((call) => call()); },
  save_changes: () => {},
  on: (event, call) => { (listeners[event] = listeners[event] || []).push(call); },
  off: (event, call) => { listeners[event] = (listeners[event] || []).filter((other) => other !== call); },
};
window.opened = () => {
  const el = document.querySelector("#host").appendChild(document.createElement("div"));
  const close = view.render({ model: window.model, el });
  return () => { close(); el.remove(); };
};
window.cleanup = window.opened();
</script></body></html>"""


def load(name: str, folder: Path = HUB_TESTS) -> Any:
    """A module of the tests by its path."""
    spec = spec_from_file_location(f"browser_tests_{name}", folder / f"{name}.py")
    module = module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


class Stand:
    """A hub on a port of its own, runs that invent numbers, and a wire in between that can be cut."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.files = folder / "runtime", folder / "files"
        self.runs: list[Any] = []
        self._tasks: list[asyncio.Task] = []
        self._pipes: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> "Stand":
        for path in (self.folder, self.files):
            path.mkdir(mode=0o700, parents=True)
        (self.files / "index.html").write_text(PAGE)
        (self.files / "live.mjs").write_text(view_module("live"))
        with suppress(FileNotFoundError):
            (self.files / "home.mjs").write_text(view_module("home"))
        self._thread.start()
        self.do(self._start())
        return self

    def __exit__(self, *_: object) -> None:
        self.do(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)

    def do(self, work: Awaitable[Any]) -> Any:
        """The result of a coroutine, run on the stand's own loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(20)

    def tell(self, call: Any, *args: Any, **named: Any) -> Any:
        """The result of a function, called on the stand's own loop."""

        async def work() -> Any:
            return call(*args, **named)

        return self.do(work())

    @property
    def address(self) -> str:
        """The hub, through the wire that can be cut."""
        return f"http://127.0.0.1:{self.port}"

    def login(self, query: str) -> str:
        """The address that logs a browser in and goes on to the page."""
        following = urllib.request.quote(f"/index.html?{query}", safe="")
        return f"{self.address}/workbench/login?token={TOKEN}&next={following}"

    def add_run(self, *, steps_per_second: float = 10, **options: Any) -> Any:
        """A run that goes on until it is told otherwise."""
        return self.do(self._add_run(steps_per_second, options))

    def say(self, run: Any, **state: Any) -> None:
        """Change what a run says of itself."""

        def change() -> None:
            run.state.update(state)
            run.publish_state()

        self.tell(change)

    @staticmethod
    def until(condition: Callable[[], bool], seconds: float = 8.0) -> None:
        """Wait until something is so; what is told to a page needs a moment to reach a run."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, "it did not happen"
            time.sleep(0.02)

    def cut(self) -> None:
        """Break the wire; nobody can connect until it is mended."""
        self.do(self._cut())

    def mend(self) -> None:
        """Let pages connect again."""
        self.do(self._listen())

    def request(self, path: str, body: dict | None = None) -> tuple[int, Any]:
        """What the hub answers to somebody with the token."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Authorization": f"token {TOKEN}"}
        request = urllib.request.Request(f"{self.address}/workbench/api/v1/{path}", data=data, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    async def _start(self) -> None:
        dev_server = load("dev_server")
        self._fake = load("fake_runtime")
        original = dev_server.Hub
        dev_server.Hub = functools.partial(original, folder=self.folder, scan_seconds=0.1)
        self.server, self.hub = await dev_server.serve(port=0, tokens={TOKEN: "me"}, files=self.files)
        [listening] = self.server._sockets.values()
        self._inner = listening.getsockname()[1]
        self.port = 0
        await self._listen()

    async def _stop(self) -> None:
        for run in self.runs:
            await run.close(None)
        for task in self._tasks:
            task.cancel()
        await self._cut()
        await self.hub.stop()
        self.server.stop()

    async def _add_run(self, steps_per_second: float, options: dict[str, Any]) -> Any:
        run = self._fake.FakeRuntime(folder=self.folder, **options)
        await run.start()
        self._tasks.append(asyncio.ensure_future(run.train(steps_per_second)))
        self.runs.append(run)
        self.hub.scan()
        return run

    async def _listen(self) -> None:
        self._wire = await asyncio.start_server(self._pipe, "127.0.0.1", self.port)
        self.port = self._wire.sockets[0].getsockname()[1]

    async def _cut(self) -> None:
        self._wire.close()
        for writer in list(self._pipes):
            writer.close()

    async def _pipe(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", self._inner)
        self._pipes |= {writer, inner_writer}

        async def copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
            with suppress(OSError):
                while data := await source.read(65536):
                    target.write(data)
                    await target.drain()
            target.close()

        await asyncio.gather(copy(reader, inner_writer), copy(inner_reader, writer))
        self._pipes -= {writer, inner_writer}

"""A real JupyterLab with invented runs beside it, and pages on it: what the browser tests of the extension stand on."""

import asyncio
import json
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Awaitable, Sequence
from contextlib import suppress
from functools import partial
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

from playwright.sync_api import TimeoutError

TOKEN = "lab-tests"
BASE = "/user/ana/"
NAME = "@moe-workbench/lab"
PATIENCE = 60_000
INSTALLED = Path(sys.prefix) / "share" / "jupyter" / "labextensions" / NAME

# JupyterLab without the extension, on the same server: the page's own list of extensions loses one entry.
WITHOUT_EXTENSION = f"""
const found = Document.prototype.getElementById;
Document.prototype.getElementById = function (id) {{
  const element = found.call(this, id);
  if (id === "jupyter-config-data" && element && !element.dataset.cut) {{
    const config = JSON.parse(element.textContent);
    config.federated_extensions = config.federated_extensions.filter((extension) => extension.name !== "{NAME}");
    element.textContent = JSON.stringify(config);
    element.dataset.cut = "yes";
  }}
  return element;
}};"""
# When the application stood, on the page's own clock.
TIMER = """
let application;
Object.defineProperty(window, "jupyterapp", {
  configurable: true,
  get: () => application,
  set(value) {
    application = value;
    value.restored.then(() => { window.restoredAt = performance.now(); });
  },
});"""


def load(path: Path) -> Any:
    """A module of the tests by its path."""
    spec = spec_from_file_location(f"browser_tests_{path.stem}", path)
    module = module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


class LabStand:
    """JupyterLab (and Notebook) on a port of its own, below a base URL, with a home of its own."""

    def __init__(self, home: Path, options: Sequence[str] = ()) -> None:
        self.home, self.options = home, options
        self.runs: list[Any] = []
        self._tasks: dict[str, asyncio.Task] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._fake = load(Path(__file__).parent.parent / "hub" / "fake_runtime.py")

    def __enter__(self) -> "LabStand":
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.address = f"http://127.0.0.1:{self.port}{BASE}"
        names = ("config", "data", "runtime")
        self.environment = {**os.environ, **{f"JUPYTER_{name.upper()}_DIR": str(self.home / name) for name in names}}
        command = [
            *(sys.executable, "-m", "jupyter", "lab", "--no-browser", "--allow-root", f"--ServerApp.port={self.port}"),
            *(f"--IdentityProvider.token={TOKEN}", f"--ServerApp.root_dir={self.home}"),
            *(f"--ServerApp.base_url={BASE}", "--Workbench.owner=ana", *self.options),
            *("--LabApp.expose_app_in_browser=True", "--JupyterNotebookApp.expose_app_in_browser=True"),
            *("--LabApp.news_url=", "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"),
        ]
        self.log = self.home / "lab.log"
        with self.log.open("w") as log:
            both = subprocess.STDOUT
            self.server = subprocess.Popen(command, cwd=self.home, env=self.environment, stdout=log, stderr=both)
        self._wait()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for run in self.runs:
            self.end(run)
        self.server.terminate()
        self.server.wait(timeout=20)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    def add_run(self, *, steps_per_second: float = 10, **options: Any) -> Any:
        """A run that goes on until it is told otherwise."""
        return self.do(self._add_run(steps_per_second, options))

    def say(self, run: Any, **state: Any) -> None:
        """Change what a run says of itself."""

        async def change() -> None:
            run.state.update(state)
            run.publish_state()

        self.do(change())

    def freeze(self, run: Any) -> None:
        """Let a run say that it trains, and do nothing."""
        self._loop.call_soon_threadsafe(self._tasks[run.id].cancel)

    def end(self, run: Any) -> None:
        """A run that is over and gone from the disk; the server still knows it."""
        if run.state["status"] != "gone":
            self.freeze(run)
            self.do(run.close())
            run.state["status"] = "gone"

    def do(self, work: Awaitable[Any]) -> Any:
        """The result of a coroutine, run beside the tests."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(20)

    def ask(self, path: str) -> Any:
        """What the workbench's routes answer."""
        request = urllib.request.Request(f"{self.address}workbench/api/v1/{path}")
        request.add_header("Authorization", f"token {TOKEN}")
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)

    async def _add_run(self, steps_per_second: float, options: dict[str, Any]) -> Any:
        folder = self.home / "runtime" / "workbench"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        run = self._fake.FakeRuntime(folder=folder, **options)
        await run.start()
        self._tasks[run.id] = asyncio.ensure_future(run.train(steps_per_second))
        self.runs.append(run)
        return run

    def _wait(self) -> None:
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline and self.server.poll() is None:
            with suppress(OSError), urllib.request.urlopen(f"{self.address}api?token={TOKEN}", timeout=5):
                return
            time.sleep(0.2)
        raise AssertionError(f"JupyterLab did not start:\n{self.log.read_text()[-3000:]}")


class LabPages:
    """Opens pages of a stand, and knows at the end what went wrong on them."""

    def __init__(self, browser: Any, stand: LabStand) -> None:
        self.browser, self.stand = browser, stand
        self.contexts: list[Any] = []
        self.problems: list[str] = []

    def open(
        self,
        path: str = "lab",
        query: str = "reset",
        *,
        scripts: Sequence[str] = (),
        may_complain: bool = False,
        before: Any = None,
        **options: Any,
    ) -> Any:
        """A page of JupyterLab, ready.

        It has `sockets`, `said` (errors in its console), `asked` (addresses), `run` (a command) and `tabs`.
        """
        context = self.browser.new_context(**{"viewport": {"width": 1400, "height": 900}, **options})
        self.contexts.append(context)
        page = context.new_page()
        for script in scripts:
            page.add_init_script(script)
        self._watch(page, may_complain)
        if before is not None:
            before(page)
        page.goto(f"{self.stand.address}{path}?token={TOKEN}&{query}")
        page.wait_for_function("window.jupyterapp", timeout=PATIENCE)
        page.evaluate("async () => { await window.jupyterapp.restored; }")
        self._until_focused(page, "document.activeElement !== document.body")
        return page

    def first(self, run: Any) -> Any:
        """The first page again, with the launcher alone, and the sidebar's `entry` of this run."""
        page = self.contexts[0].pages[0]
        page.evaluate("() => [...window.jupyterapp.shell.widgets('main')].forEach((widget) => widget.close())")
        page.locator(".jp-Launcher").wait_for()
        self._until_focused(page, "document.activeElement.closest('.jp-Launcher') !== null")
        page.asked.clear()
        page.sockets.clear()
        self.problems.clear()
        page.entry = page.locator(f".moe-lab-run[data-run='{run.id}']")
        page.entry.wait_for()
        return page

    @staticmethod
    def _until_focused(page: Any, condition: str) -> None:
        """JupyterLab gives a new tab the focus in its own time, from whatever has it then; at times it never does."""
        with suppress(TimeoutError):
            page.wait_for_function(f"() => {condition}", timeout=5000)

    def close(self) -> list[str]:
        """Ends all pages; errors that were logged and requests that left the host."""
        for context in self.contexts:
            context.close()
        return self.problems

    def _watch(self, page: Any, may_complain: bool) -> None:
        page.sockets, page.said, page.asked = [], [], []
        page.run, page.tabs = partial(run_command, page), partial(tabs, page)
        said = page.said if may_complain else self.problems
        page.on("console", lambda message: said.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: self._asked(page, request.url))
        page.on("websocket", lambda opened: (page.sockets.append(opened), self._asked(page, opened.url)))

    def _asked(self, page: Any, url: str) -> None:
        page.asked.append(url)
        if not url.startswith((self.stand.address, self.stand.address.replace("http", "ws"), "data:", "blob:")):
            self.problems.append(f"left the host: {url}")


def run_command(page: Any, command: str, **args: Any) -> None:
    """Start a command of JupyterLab; not awaited, because one may end with the page."""
    page.evaluate("([name, args]) => { void window.jupyterapp.commands.execute(name, args); }", [command, args])


def tabs(page: Any) -> list[str]:
    """Labels of the tabs in the main area."""
    return page.evaluate("() => [...window.jupyterapp.shell.widgets('main')].map((widget) => widget.title.label)")

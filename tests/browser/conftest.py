"""A page with one view in it, shown the way a widget host shows it, watched for errors and for requests."""

import base64
import shutil
import sys
from collections.abc import Callable, Iterator
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest
import xarray as xr

from workbench.view.bundle import view_module
from workbench.view.payloads import expert_load_payload, loss_curves_payload, token_strip_payload

playwright_api = pytest.importorskip("playwright.sync_api", reason="the playwright package is not installed")

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--disable-background-networking",
    "--font-render-hinting=none",
]

PROBE = Path(__file__).parent / "probe.js"

# A host: imports the module from a blob as anywidget does, and hands bytes over as a DataView into a larger buffer.
HOST = """async ([source, payload]) => {
  const bytesOf = (text) => {
    const raw = Uint8Array.from(atob(text), (sign) => sign.charCodeAt(0));
    const larger = new Uint8Array(raw.length + 8);
    larger.set(raw, 3);
    return new DataView(larger.buffer, 3, raw.length);
  };
  const traits = { payload: bytesOf(payload), selection: {} };
  const listeners = {};
  const model = {
    get: (name) => traits[name],
    set: (name, value) => { traits[name] = value; (listeners["change:" + name] || []).forEach((call) => call()); },
    save_changes: () => { window.saves = (window.saves || 0) + 1; },
    on: (event, call) => { (listeners[event] = listeners[event] || []).push(call); },
    off: (event, call) => { listeners[event] = (listeners[event] || []).filter((other) => other !== call); },
  };
  const url = URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
  const view = (await import(url)).default;
  const el = document.querySelector("#host");
  window.cleanup = await view.render({ model, el });
  window.send = (text) => model.set("payload", bytesOf(text));
  window.model = model;
  window.listenerCount = () => Object.values(listeners).reduce((sum, list) => sum + list.length, 0);
}"""


@pytest.fixture(scope="session")
def browser() -> Iterator["playwright_api.Browser"]:
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine; install Debian's package `chromium` to run the browser tests")
    with playwright_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield chromium
        chromium.close()


@pytest.fixture
def new_page(browser: "playwright_api.Browser") -> Iterator[Callable[..., "playwright_api.Page"]]:
    """A page in a context of its own; at the end no page may have logged an error or asked the network for anything."""
    contexts, problems = [], []

    def make(**options: object) -> "playwright_api.Page":
        context = browser.new_context(**{"viewport": {"width": 1100, "height": 900}, **options})
        contexts.append(context)
        page = context.new_page()
        page.add_init_script(path=PROBE)
        page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on(
            "request", lambda request: problems.append(request.url) if request.url.startswith(("http", "ws")) else None
        )
        return page

    yield make
    for context in contexts:
        context.close()
    assert problems == []


@pytest.fixture
def open_view(new_page: Callable[..., "playwright_api.Page"], tmp_path: Path) -> Callable[..., "playwright_api.Page"]:
    """Shows one view with a payload, as a notebook would, on a page of the given look."""

    def show(
        view: str, payload: bytes, *, width: int = 1100, dark: bool = False, **options: object
    ) -> "playwright_api.Page":
        page = new_page(viewport={"width": width, "height": 900}, **options)
        ground = "#101418" if dark else "#ffffff"
        host = tmp_path / "host.html"
        host.write_text(
            f'<!doctype html><html lang="en"><meta charset="utf-8"><title>host</title>'
            f'<body style="margin:8px;background:{ground}"><div id="host"></div>'
        )
        page.goto(host.as_uri())
        page.evaluate(HOST, [view_module(view), base64.b64encode(payload).decode()])
        page.wait_for_selector(".moe-view")
        wait_for_frames(page)
        return page

    return show


@pytest.fixture
def open_quietly(
    browser: "playwright_api.Browser", tmp_path: Path
) -> Iterator[Callable[[str, bytes], "playwright_api.Page"]]:
    """Like `open_view`, for payloads that the view must complain about."""
    pages = []

    def show(view: str, payload: bytes) -> "playwright_api.Page":
        host = tmp_path / "host.html"
        host.write_text('<!doctype html><html lang="en"><meta charset="utf-8"><title>host</title><div id="host"></div>')
        page = browser.new_page()
        pages.append(page)
        page.goto(host.as_uri())
        page.evaluate(HOST, [view_module(view), base64.b64encode(payload).decode()])
        return page

    yield show
    for page in pages:
        page.close()


@pytest.fixture(scope="session")
def send() -> Callable[["playwright_api.Page", bytes], None]:
    """Gives the view on a page another payload, as a running kernel does."""

    def publish(page: "playwright_api.Page", payload: bytes) -> None:
        page.evaluate("(text) => window.send(text)", base64.b64encode(payload).decode())
        wait_for_frames(page)

    return publish


@pytest.fixture(scope="session")
def samples() -> ModuleType:
    """Traces made by hand: the module `sample_traces` of the view tests."""
    path = Path(__file__).parent.parent / "view" / "sample_traces.py"
    spec = spec_from_file_location("browser_tests_sample_traces", path)
    module = module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def payload_of(samples: ModuleType) -> Callable[..., bytes]:
    """The payload of a view for a trace of the given groups; without groups, for a whole run."""
    builders = {
        "expert_load": expert_load_payload,
        "loss_curves": loss_curves_payload,
        "token_strip": token_strip_payload,
    }

    def build(view: str, **groups: xr.Dataset) -> bytes:
        trace = xr.DataTree.from_dict({f"/{name}": group for name, group in groups.items()})
        return builders[view](trace if groups else samples.whole_trace())

    return build


@pytest.fixture(scope="session")
def settle() -> Callable[["playwright_api.Page"], None]:
    """Waits until what was asked for has been drawn."""
    return wait_for_frames


def wait_for_frames(page: "playwright_api.Page") -> None:
    page.evaluate(
        "() => new Promise((done) => {"
        "  let left = 4;"
        "  const next = () => (left-- > 0 ? requestAnimationFrame(next) : done());"
        "  next();"
        "})"
    )

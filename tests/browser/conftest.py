"""A page with one view in it, shown the way a widget host shows it, watched for errors and for requests."""

import base64
import shutil
import sys
from collections.abc import Callable, Iterator
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import xarray as xr

from workbench.view.bundle import _functions, view_module

axe_playwright_python = pytest.importorskip("axe_playwright_python", reason="axe-playwright-python is not installed")
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
HOST = Path(__file__).parent / "host.js"
PAYLOAD_TESTS = Path(__file__).parent.parent / "payloads"


@pytest.fixture(scope="session")
def browser() -> Iterator["playwright_api.Browser"]:
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine; install Debian's package `chromium` to run the browser tests")
    with playwright_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield chromium
        chromium.close()


@pytest.fixture
def picture(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[["playwright_api.Page", str], None]:
    """Photographs a page for README.md, into the folder given as `--pictures`, or to be looked at after the test."""
    folder = Path(request.config.getoption("--pictures") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)

    def take(page: "playwright_api.Page", name: str) -> None:
        page.screenshot(path=str(folder / f"{name}.png"), animations="disabled")

    return take


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
        page.evaluate(HOST.read_text(), [view_module(view), base64.b64encode(payload).decode()])
        page.wait_for_selector(".moe-view")
        wait_for_frames(page)
        return page

    return show


@pytest.fixture(scope="session")
def axe() -> Callable[["playwright_api.Page"], list[str]]:
    """What axe-core finds wrong on a page: rule, reason and element of each fault."""
    source = (Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text("utf-8")

    def faults(page: "playwright_api.Page") -> list[str]:
        page.evaluate(f"() => {{ {source} }}")
        return page.evaluate("() => probe.axe()")

    return faults


@pytest.fixture(scope="session")
def b64() -> Callable[[bytes], str]:
    """Bytes as text that a page can take."""
    return lambda payload: base64.b64encode(payload).decode()


@pytest.fixture
def helpers(new_page: Callable[..., "playwright_api.Page"]) -> Callable[..., "playwright_api.Page"]:
    """A page on which the exports of some helper modules are global, to be tested by themselves."""
    return lambda *files: with_helpers(new_page(), files)


@pytest.fixture(scope="module")
def helpers_module(browser: "playwright_api.Browser") -> Iterator[Callable[..., "playwright_api.Page"]]:
    """Like `helpers`, one page for a whole file of tests."""
    page = browser.new_page()
    yield lambda *files: with_helpers(page, files)
    page.close()


def with_helpers(page: "playwright_api.Page", files: tuple[str, ...]) -> "playwright_api.Page":
    names = " ".join(f"Object.assign(window, module_{file.replace('.', '_')});" for file in files)
    page.add_script_tag(content=f"(() => {{ {_functions(files)} {names} }})();")
    return page


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
        page.evaluate(HOST.read_text(), [view_module(view), base64.b64encode(payload).decode()])
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
    """Traces made by hand: the module `sample_traces` of the payload tests."""
    return _module("sample_traces", PAYLOAD_TESTS)


@pytest.fixture(scope="session")
def made() -> ModuleType:
    """Payloads made by hand: the module `sample_payloads` of the payload tests."""
    return _module("sample_payloads", PAYLOAD_TESTS)


def _module(name: str, folder: Path) -> ModuleType:
    spec = spec_from_file_location(f"browser_tests_{name}", folder / f"{name}.py")
    module = module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def payload_of(samples: ModuleType, made: ModuleType) -> Callable[..., bytes]:
    """The payload of a view for a trace of the given groups; without groups, one with something to see."""

    def build(view: str, **groups: xr.Dataset) -> bytes:
        return made.FROM_TRACE[view](made.tree(**groups)) if groups else made.sample_payload(view, samples)

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


@pytest.fixture(scope="session")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A hub with invented runs; see `hub_stand.py`."""
    with _module("hub_stand", Path(__file__).parent).Stand(tmp_path_factory.mktemp("stand")) as started:
        yield started


@pytest.fixture
def open_run(browser: "playwright_api.Browser", stand: Any) -> Iterator[Callable[..., "playwright_api.Page"]]:
    """Opens a run of the stand on a page; at the end no page may have logged an error or asked another host."""
    pages = _module("live_pages", Path(__file__).parent).LivePages(browser, stand, PROBE)
    yield pages.open
    assert pages.close() == []


@pytest.fixture
def run(stand: Any) -> Iterator[Any]:
    """An invented run of the stand, ten steps a second."""
    added = stand.add_run()
    yield added
    stand.tell(added.state.update, {"status": "stopped"})


@pytest.fixture
def page(open_run: Callable[..., "playwright_api.Page"], run: Any) -> "playwright_api.Page":
    """The live workbench of that run."""
    return open_run(run.id)


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A JupyterLab below a base URL, with invented runs beside it; see `lab_stand.py`."""
    made = _module("lab_stand", Path(__file__).parent)
    if not made.INSTALLED.is_dir():
        pytest.skip("the JupyterLab extension is not built: run `make setup` where npm is in reach")
    with made.LabStand(tmp_path_factory.mktemp("lab"), ["--Workbench.instructors=ana"]) as started:
        yield started


@pytest.fixture
def lab_run(lab: Any) -> Iterator[Any]:
    """An invented run that JupyterLab knows; the only one that goes on."""
    added = lab.add_run()
    yield added
    lab.end(added)


@pytest.fixture
def open_lab(browser: "playwright_api.Browser", lab: Any) -> Iterator[Callable[..., "playwright_api.Page"]]:
    """Opens JupyterLab; at the end no page may have logged an error or asked another host."""
    pages = _module("lab_stand", Path(__file__).parent).LabPages(browser, lab)
    yield pages.open
    assert pages.close() == []


@pytest.fixture(scope="session")
def lab_pages(browser: "playwright_api.Browser", lab: Any) -> Iterator[Any]:
    """One page of JupyterLab for many tests: it takes seconds to load."""
    pages = _module("lab_stand", Path(__file__).parent).LabPages(browser, lab)
    pages.open().run("moe-workbench:show-sidebar")
    yield pages
    pages.close()


@pytest.fixture
def sidebar(lab_pages: Any, lab_run: Any) -> Iterator[Any]:
    """That page with the launcher alone, the sidebar open, and the run in it as `entry`; nothing may go wrong on it."""
    page = lab_pages.first(lab_run)
    yield page
    assert lab_pages.problems == []

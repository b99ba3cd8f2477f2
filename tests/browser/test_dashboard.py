"""The dashboard as a person opens it: the address from the terminal, the runs of this machine, one run, back again."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

import axe_playwright_python
import pytest

pytestmark = pytest.mark.browser

ROOT = Path(__file__).resolve().parents[2]
TOKEN = "a-token-of-tests"
AXE = Path(axe_playwright_python.__file__).parent / "axe.min.js"


@pytest.fixture(scope="module")
def app(tmp_path_factory):
    """The address that `workbench app` prints, with two invented runs on this machine."""
    folder = tmp_path_factory.mktemp("app")
    environment = {**os.environ, "JUPYTER_RUNTIME_DIR": str(folder / "runtime"), "OMP_NUM_THREADS": "1"}
    started = {"cwd": folder, "env": environment, "stdout": subprocess.PIPE, "text": True}
    command = [sys.executable, "-m", "workbench", "app", "--token", TOKEN, "--no-browser"]
    fake = [sys.executable, str(ROOT / "tests" / "hub" / "fake_runtime.py")]
    processes = [subprocess.Popen(line, **started) for line in (command, fake, [*fake, "--experts", "16"])]
    try:
        address = processes[0].stdout.readline().removeprefix("workbench app: ").strip()
        ids = [process.stdout.readline().strip() for process in processes[1:]]
        yield address, ids
    finally:
        for process in reversed(processes):
            process.terminate()
        for process in processes:
            process.wait(20)
            process.stdout.close()


@pytest.fixture
def open_app(browser, app, request):
    """Opens the dashboard; at the end no page may have logged an error or asked another host for anything."""
    address, _ = app
    contexts, problems = [], []

    def check(url):
        parts = urlsplit(url)
        if parts.scheme not in ("data", "blob") and parts.netloc != urlsplit(address).netloc:
            problems.append(f"a request left the host: {url}")

    def show(path="", **options):
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
        contexts.append(context)
        page = context.new_page()
        page.add_init_script(path=Path(__file__).parent / "probe.js")
        page.sockets = []
        page.on("websocket", lambda socket: (page.sockets.append(socket.url), check(socket.url)))
        page.on("request", lambda asked: check(asked.url))
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda said: problems.append(said.text) if said.type == "error" else None)
        page.goto(address)
        if path:
            page.goto(address.partition("?")[0] + path)
        page.wait_for_selector(".moe-home h2, .moe-live-head", timeout=40_000)
        return page

    yield show
    for context in contexts:
        context.close()
    assert problems == []


def streams(page):
    return [url for url in page.sockets if "/workbench/api/" in url]


def test_the_address_from_the_terminal_shows_the_runs_and_hides_the_token(open_app, app):
    began = time.monotonic()
    page = open_app()
    assert time.monotonic() - began < 30
    assert TOKEN not in page.url
    page.wait_for_selector(".moe-run_table tbody tr")
    assert page.locator(".moe-run_table tbody tr").count() == 2
    assert page.get_by_role("heading", name="Watch a mixture of experts learn").is_visible()
    assert [url.partition("/workbench/")[2] for url in streams(page)] == ["api/v1/runs/stream"]


def test_a_run_opens_with_one_socket_and_obeys(open_app):
    page = open_app()
    page.locator(".moe-run_table tbody tr button").first.click()
    page.wait_for_selector(".moe-live-head")
    assert re.search(r"\?run=[0-9a-f]{32}$", page.url)
    page.wait_for_function("() => window.__moe.stats.length > 5")
    assert len(streams(page)) == 2, "the list, then the run"
    page.get_by_role("button", name="Pause").click()
    page.wait_for_selector(".moe-live-chip >> text=Paused")
    page.get_by_role("button", name="Resume").click()
    page.wait_for_selector(".moe-live-chip >> text=Training")
    page.get_by_role("button", name="← All runs").click()
    page.wait_for_selector(".moe-run_table")
    assert "run=" not in page.url


def test_the_address_of_a_run_opens_it_and_the_way_back_works(open_app, app):
    page = open_app(f"?run={app[1][1]}")
    assert "4 layers × 16 experts" in page.locator(".moe-live-about").inner_text()  # noqa: RUF001
    page.get_by_role("button", name="← All runs").click()
    page.wait_for_selector(".moe-run_table")
    page.go_back()
    page.wait_for_selector(".moe-live-head")


def test_two_runs_stand_side_by_side(open_app):
    page = open_app()
    page.wait_for_selector(".moe-live-compare tbody tr")
    rows = page.locator(".moe-live-compare tbody tr")
    facts = dict(rows.evaluate_all("(all) => all.map((row) => [row.cells[0].textContent, row.cells.length])"))
    assert facts["Loss [nat/token]"] == 3
    page.locator(".moe-live-picks input").first.uncheck()
    assert page.get_by_text("Tick two runs or more.").is_visible()


def test_a_link_with_settings_fills_the_form_and_starts_nothing(open_app):
    page = open_app("?preset=swap_the_router&seed=7&steps=123&router=switch&balance=null")
    card = page.locator(".moe-lesson").first
    card.locator(".moe-live-form").wait_for()
    assert card.get_by_role("heading").inner_text() == "Swap the router while it trains"
    assert card.get_by_label("Seed").input_value() == "7"
    assert card.get_by_label("Steps").input_value() == "123"
    assert card.get_by_label("Balance loss").input_value() == ""
    assert page.locator(".moe-run_table tbody tr").count() == 2


def test_a_wrong_setting_is_said_beside_the_button(open_app):
    page = open_app("?preset=first_run")
    card = page.locator(".moe-lesson").first
    card.get_by_label("Seed").fill("")
    card.get_by_role("button", name="Start").click()
    page.wait_for_selector("text=Seed must be a number, got nothing")


def test_axe_finds_nothing_in_our_part(open_app):
    page = open_app()
    page.wait_for_selector(".moe-live-compare tbody tr")
    page.locator(".moe-lesson").first.get_by_role("button", name="Settings").click()
    page.evaluate(f"() => {{ {AXE.read_text()} }}")
    faults = page.evaluate(
        """async () => {
          const found = await window.axe.run(document, { elementRef: true });
          const ours = ({ element }) => element?.closest(".moe-home") != null;
          return found.violations.flatMap(({ id, nodes }) => nodes.filter(ours).map(({ html }) => `${id}: ${html}`));
        }"""
    )
    assert faults == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_it_fits_and_follows_the_system(open_app, scheme, width):
    page = open_app(color_scheme=scheme, viewport={"width": width, "height": 900})
    page.wait_for_selector(f".moe-home[data-theme={scheme}]")
    assert page.evaluate("() => document.documentElement.scrollWidth") <= width


def test_without_the_token_there_is_a_page_that_asks_for_it(browser, app):
    address = app[0].partition("?")[0]
    page = browser.new_page()
    page.goto(address)
    assert page.get_by_role("heading", name="This page needs a token").is_visible()
    page.get_by_label("Token").fill(TOKEN)
    page.get_by_role("button", name="Open the workbench").click()
    page.wait_for_selector(".moe-home h2", timeout=40_000)
    page.close()


def test_the_policy_keeps_the_page_on_its_host(browser, app):
    page = browser.new_page()
    page.add_init_script(path=Path(__file__).parent / "probe.js")
    page.goto(app[0])
    page.wait_for_selector(".moe-home h2", timeout=40_000)
    blocked = page.evaluate(
        """() => new Promise((done) => {
          const seen = [];
          document.addEventListener("securitypolicyviolation", (event) => seen.push(event.effectiveDirective));
          fetch("http://127.0.0.2:9/").catch(() => {});
          new Image().src = "http://127.0.0.2:9/x.png";
          setTimeout(() => done(seen.sort()), 1000);
        })"""
    )
    assert blocked == ["connect-src", "img-src"]
    page.close()


def test_behind_jupyter_it_is_the_same_page_and_jupyter_asks_who_comes(browser, lab, lab_run):
    address = f"{lab.address}workbench-app/"
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.goto(address)
    assert "/login" in page.url, "without Jupyter's own token nobody gets in"
    page.goto(f"{address}?token=lab-tests", timeout=90_000)
    page.wait_for_selector(".moe-run_table tbody tr", timeout=60_000)
    page.get_by_role("button", name="Invented run").first.click()
    page.wait_for_selector(".moe-live-head")
    page.get_by_role("button", name="Pause").click()
    page.wait_for_selector(".moe-live-chip >> text=Paused")
    assert lab_run.state["status"] == "paused"
    context.close()

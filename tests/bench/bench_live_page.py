"""What a person waits for in the live workbench: a press, its answer, a frame on the screen, a connection that was cut.

The page is headless Chromium, the run is invented and publishes ten times a second; all of it shares the machine.
Without the checks of signatures that tests run with: those make a hub several times slower.
"""

import platform
import shutil
import time
from contextlib import contextmanager
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
from playwright.sync_api import sync_playwright

BROWSER = Path(__file__).resolve().parent.parent / "browser"
PRESSES, SECONDS = 40, 20
STEPS = "[...window.__moe.clients.values()][0].topics.get('loss_curves').arrays.step.data"
PRESS = """async (presses) => {
  const [button, life] = [document.querySelector(".moe-main"), document.querySelector(".moe-live-bar .moe-live-life")];
  const seen = [];
  for (let nth = 0; nth < presses; nth += 1) {
    const began = performance.now();
    const entry = {};
    const watch = new MutationObserver(() => {
      const now = performance.now() - began;
      if (life.dataset.status === "sent") entry.sent ??= now;
      else entry.answered ??= now;
    });
    watch.observe(life, { attributes: true, childList: true, subtree: true, characterData: true });
    button.click();
    await new Promise((done) => setTimeout(done, 250));
    watch.disconnect();
    seen.push([entry.sent, entry.answered]);
  }
  return seen;
}"""


def p95(values):
    return sorted(values)[int(len(values) * 0.95)]


def row(what, values, goal):
    # what had not come when the next press followed counts as longer than everything that came.
    ordered = sorted(float("inf") if value is None else value for value in values)
    print(f"{what:44}{ordered[len(ordered) // 2]:8.1f}{p95(ordered):8.1f}{goal:>8} ms, {len(values)} times")


@contextmanager
def opened():
    """A stand, a run, and a page on it."""
    spec = spec_from_file_location("bench_hub_stand", BROWSER / "hub_stand.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    with TemporaryDirectory() as folder, module.Stand(Path(folder)) as stand, sync_playwright() as playwright:
        run = stand.add_run()
        arguments = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"]
        browser = playwright.chromium.launch(executable_path=chromium, args=arguments)
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.goto(stand.login(f"id={run.id}"))
        page.wait_for_function("() => window.__moe?.stats.length > 30")
        yield stand, page
        browser.close()


def bench_live_page():
    with opened() as (stand, page):
        page.evaluate("() => { window.__moe.stats.length = 0; }")
        page.wait_for_timeout(SECONDS * 1000)
        ages = page.evaluate("() => window.__moe.stats.map(({ produced, drawn }) => drawn - produced)")
        sent, answered = zip(*page.evaluate(PRESS, PRESSES), strict=True)
        page.wait_for_timeout(500)
        if page.locator(".moe-main").inner_text() != "Pause":
            page.locator(".moe-main").click()
        stand.cut()
        page.wait_for_timeout(5000)
        before = page.evaluate(f"() => {STEPS}.length")
        stand.mend()
        began = time.monotonic()
        page.wait_for_function(f"(count) => {STEPS}.length > count", arg=before)
        seconds = time.monotonic() - began
    load = psutil.getloadavg()[0]
    machine = platform.processor() or platform.machine()
    print(f"\n{machine}, {psutil.cpu_count()} cores, load {load:.1f}, headless Chromium")
    print(f"{'':44}{'median':>8}{'p95':>8}{'goal':>8}")
    row("frame produced to drawn", ages, 50)
    row("press to 'sent' on the screen", sent, 50)
    row("press to the hub's answer on the screen", answered, 100)
    print(f"{'back after a drop of 5 s':44}{seconds:16.2f}{2:>8} s, once, no gap")

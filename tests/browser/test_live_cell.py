"""The live widget in a cell of a real notebook: a model trains in the kernel, with the hub beside it and without."""

import json
import time

import pytest

pytestmark = [pytest.mark.browser, pytest.mark.slow]

START = """
from workbench.session import Session
session = Session(model="tiny", router="switch", batch_size=2, sequence_length=32, seed=0)
run = session.train(40_000, background=True)
session
"""


def notebook(*cells):
    """A notebook of code cells, as a file holds it."""
    made = [
        {"cell_type": "code", "id": f"c{at}", "metadata": {}, "source": cell, "outputs": [], "execution_count": None}
        for at, cell in enumerate(cells)
    ]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return json.dumps({"cells": made, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5})


@pytest.fixture
def open_notebook(lab, open_lab):
    """Opens a notebook with these cells, waits for its kernel, and runs the first."""
    opened = []

    def show(name, *cells, **options):
        (lab.home / name).write_text(notebook(*cells))
        page = open_lab(f"lab/tree/{name}", **options)
        status = "window.jupyterapp.shell.currentWidget?.sessionContext?.session?.kernel?.status"
        page.wait_for_function(f"{status} === 'idle'", timeout=60_000)
        page.run("notebook:run-cell-and-select-next")
        opened.append(page)
        return page

    yield show
    for page in opened:
        page.evaluate("async () => { await window.jupyterapp.serviceManager.sessions.shutdownAll(); }")


def test_a_session_shows_itself_and_obeys(open_notebook, picture):
    page = open_notebook("hub.ipynb", START, "session.live.status", may_complain=True)
    page.wait_for_selector(".moe-live-head", timeout=120_000)
    page.wait_for_function("() => document.querySelector('.moe-live-link').innerText.trim() === 'Live'")
    page.wait_for_function("() => window.__moe?.stats.some(({ topic }) => topic === 'loss_curves')", timeout=60_000)
    assert sum("/stream" in socket.url and "/workbench/" in socket.url for socket in page.sockets) == 2, "list and run"
    page.locator(".moe-loss_curves .moe-lead", has_text="Training loss fell from").wait_for()
    picture(page, "cell")
    page.get_by_role("group", name="Controls of the run").get_by_role("button", name="Pause").click()
    page.wait_for_selector(".moe-live-chip >> text=Paused")
    # a hub may know a run a second later than the kernel: the browser logs that it was asked too early.
    assert [text for text in page.said if not text.startswith("Failed to load resource")] == []


def test_a_cell_that_blocks_does_not_block_the_controls(open_notebook, record_property):
    page = open_notebook(
        "blocked.ipynb", START, "import time\nfor _ in range(600):\n    time.sleep(0.05)", may_complain=True
    )
    page.wait_for_selector(".moe-live-head", timeout=120_000)
    page.wait_for_function("() => window.__moe?.stats.some(({ topic }) => topic === 'loss_curves')", timeout=60_000)
    page.run("notebook:run-cell")
    page.wait_for_function(
        "window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.status === 'busy'", timeout=20_000
    )
    began = time.monotonic()
    page.get_by_role("group", name="Controls of the run").get_by_role("button", name="Pause").click()
    page.wait_for_selector(".moe-live-chip >> text=Paused", timeout=20_000)
    record_property("seconds_to_pause_while_a_cell_blocks", round(time.monotonic() - began, 3))
    assert time.monotonic() - began < 10


def test_without_a_hub_the_kernel_carries_everything(open_notebook):
    def without_hub(page):
        page.route("**/workbench/api/v1/**", lambda route: route.fulfill(status=404, json={"reason": "no hub"}))

    page = open_notebook("comm.ipynb", START, before=without_hub, may_complain=True)
    page.wait_for_selector(".moe-live-head", timeout=120_000)
    page.wait_for_selector(".moe-live-link >> text=through the kernel")
    page.wait_for_function("() => window.__moe?.stats.some(({ topic }) => topic === 'loss_curves')", timeout=60_000)
    bar = page.get_by_role("group", name="Controls of the run")
    bar.get_by_role("button", name="Pause").click()
    page.wait_for_selector(".moe-live-chip >> text=Paused", timeout=30_000)
    bar.get_by_role("combobox", name="Router to swap to").select_option("top_k")
    bar.get_by_role("button", name="Swap to").click()
    page.wait_for_selector(".moe-live-notice >> text=Swap the router to top_k: applied at step", timeout=30_000)


def test_the_first_picture_comes_within_a_second(open_notebook, record_property):
    quiet = START.replace("\nsession\n", "\nsession.live.wait\n")
    page = open_notebook("paint.ipynb", quiet, "session", may_complain=True)
    counts = "[...window.jupyterapp.shell.currentWidget.content.widgets].map((cell) => cell.model.executionCount)"
    page.wait_for_function(f"() => {counts}[0] === 1", timeout=120_000)
    began = time.monotonic()
    page.run("notebook:run-cell")
    page.wait_for_selector(".moe-live-head", timeout=30_000)
    seconds = time.monotonic() - began
    record_property("seconds_to_first_paint", round(seconds, 2))
    # ten times what is promised on an idle machine: one that is not idle has no share that could be counted on.
    assert seconds < 10

"""The extension in a real JupyterLab below a base URL: launcher, sidebar, panels, status bar, theme, reload."""

import re
import subprocess
import sys

import pytest

pytestmark = pytest.mark.browser

CLOSE_ALL = "() => [...window.jupyterapp.shell.widgets('main')].forEach((widget) => widget.close())"


def step_of(entry):
    return int(re.search(r"step ([\d,]+)", entry.inner_text())[1].replace(",", ""))


def test_jupyter_lists_the_extension_as_ok(lab):
    command = [sys.executable, "-m", "jupyter", "labextension", "list"]
    done = subprocess.run(command, env=lab.environment, capture_output=True, text=True, check=True)
    said = re.sub(r"\x1b\[\d*m", "", done.stdout + done.stderr)
    assert re.search(r"@moe-workbench/lab v\S+ enabled OK \(python, moe-workbench\)", said)


def test_the_launcher_has_a_tile_that_opens_the_run_that_trains(sidebar, tmp_path):
    page = sidebar
    page.locator(".jp-LauncherCard", has_text="MoE Workbench").click()
    page.wait_for_selector(".moe-live-head", state="visible")
    page.wait_for_function("() => window.__moe?.stats.some(({ topic }) => topic === 'loss_curves')")
    assert page.tabs() == ["Invented run"]
    assert page.locator(".moe-live-head").inner_text().startswith("Invented run")
    assert page.locator(".moe-lab-panel canvas").first.is_visible()
    page.screenshot(path=str(tmp_path / "panel.png"))


def test_without_a_run_the_tile_opens_what_can_be_started(sidebar, lab, lab_run, tmp_path):
    page = sidebar
    lab.end(lab_run)
    page.wait_for_selector(".moe-lab-status", state="hidden")
    page.locator(".jp-LauncherCard", has_text="MoE Workbench").click()
    lessons = page.locator(".moe-lab-home .moe-lesson h4")
    lessons.first.wait_for()
    assert lessons.all_inner_texts() == [preset["title"] for preset in lab.ask("presets")["presets"]]
    assert page.tabs() == ["MoE Workbench"]
    page.screenshot(path=str(tmp_path / "home.png"))


def test_the_sidebar_tells_where_a_run_stands(sidebar, tmp_path):
    before = step_of(sidebar.entry)
    sidebar.wait_for_timeout(1500)
    assert 3 <= step_of(sidebar.entry) - before <= 60
    assert re.search(r"Training\s+synthetic\s+step [\d,]+ · loss \d\.\d{3}", sidebar.entry.inner_text())
    sidebar.screenshot(path=str(tmp_path / "sidebar.png"))


def test_the_sidebar_pauses_a_run_and_lets_it_go_on(sidebar, lab_run):
    sidebar.entry.get_by_role("button", name="Pause Invented run").click()
    sidebar.entry.and_(sidebar.locator("[data-status=paused]")).wait_for()
    assert lab_run.state["status"] == "paused"
    assert "Paused" in sidebar.entry.inner_text()
    sidebar.entry.get_by_role("button", name="Resume Invented run").click()
    sidebar.entry.and_(sidebar.locator("[data-status=running]")).wait_for()
    assert lab_run.state["status"] == "running"


def test_a_run_is_stopped_by_two_presses(sidebar, lab_run):
    stop = sidebar.entry.get_by_role("button", name=re.compile("Stop|Press again"))
    stop.click()
    sidebar.wait_for_timeout(300)
    assert lab_run.state["status"] == "running"
    stop.click()
    sidebar.entry.and_(sidebar.locator("[data-status=stopped]")).wait_for()
    assert sidebar.entry.get_by_role("button", name=re.compile("Pause|Stop")).count() == 0


def test_a_refusal_is_shown_where_the_button_is(sidebar, lab, lab_run, lab_pages):
    lab.say(lab_run, driver="bo")
    sidebar.entry.get_by_role("button", name="Pause Invented run").click()
    sidebar.entry.locator(".moe-lab-life", has_text="Refused: this run is driven by bo").wait_for()
    assert lab_run.state["status"] == "running"
    # the browser itself notes every answer that is no success
    [noted] = lab_pages.problems
    assert "403" in noted
    lab_pages.problems.clear()


def test_a_crashed_run_is_shown_with_its_last_error(sidebar, lab, lab_run):
    error = "ValueError: top_k must be between 1 and 8, got <script>9</script>"
    lab.say(lab_run, status="crashed", error=error)
    sidebar.entry.and_(sidebar.locator("[data-status=crashed]")).wait_for()
    assert "Crashed" in sidebar.entry.inner_text()
    assert error in sidebar.entry.inner_text()


def test_a_run_that_falls_silent_is_marked_as_stale(sidebar, lab, lab_run):
    assert sidebar.locator(".moe-lab-stale").count() == 0
    lab.freeze(lab_run)
    sidebar.wait_for_selector(".moe-lab-run.moe-lab-stale", timeout=20_000)
    assert re.search(r"stale, from \d\d:\d\d:\d\d", sidebar.entry.inner_text())
    sidebar.wait_for_selector(".moe-lab-status.moe-lab-stale")
    assert "stale" in sidebar.locator(".moe-lab-status").inner_text()
    # the socket may be dead: a fresh one is opened
    sidebar.wait_for_event("websocket", lambda opened: opened.url.endswith("runs/stream"), timeout=20_000)


def test_the_status_bar_has_the_run_that_goes_on_and_opens_it(sidebar, lab, lab_run):
    page = sidebar
    item = page.locator(".moe-lab-status")
    item.filter(has_text="loss").wait_for()
    assert re.fullmatch(r"Training · step [\d,]+ · loss \d\.\d{3} · synthetic", item.inner_text())
    item.click()
    page.wait_for_selector(".moe-live-head", state="visible")
    lab.end(lab_run)
    item.wait_for(state="hidden")


def test_panels_of_a_run_share_one_socket_and_closed_ones_cost_nothing(sidebar, lab_run):
    page = sidebar
    page.run("moe-workbench:open", run=lab_run.id)
    page.wait_for_selector(".moe-live-head", state="visible")
    page.run("moe-workbench:open-view", run=lab_run.id, view="expert_load")
    page.wait_for_selector(".moe-lab-panel:visible .moe-expert_load canvas")
    assert page.tabs()[-2:] == ["Invented run", "Expert load · Invented run"]
    assert page.locator(".moe-lab-panel:visible .moe-loss_curves").count() == 0
    [stream] = [opened for opened in page.sockets if f"runs/{lab_run.id}/stream" in opened.url]
    page.evaluate(CLOSE_ALL)
    page.wait_for_function("() => window.__moe.clients.size === 0")
    page.wait_for_timeout(200)
    assert stream.is_closed()


def test_a_run_that_the_server_does_not_know_is_spoken_of_and_not_asked_for(sidebar):
    page = sidebar
    page.run("moe-workbench:open", run="f" * 32)
    page.locator(".moe-lab-waiting", has_text="This server knows no run ffffffff.").wait_for(timeout=6000)
    assert [url for url in page.asked if "f" * 32 in url] == []


def test_every_address_lies_below_the_base_url(open_lab, lab_run):
    page = open_lab()
    page.run("moe-workbench:open", run=lab_run.id)
    page.wait_for_selector(".moe-live-head", state="visible")
    ours = [url for url in page.asked if "workbench" in url]
    assert any("/runs/stream" in url for url in ours)
    assert any(f"/runs/{lab_run.id}/stream" in url for url in ours)
    assert any("/static/" in url for url in ours)
    assert [url for url in ours if "/user/ana/" not in url] == []


def test_a_reload_brings_back_panels_and_sidebar(open_lab, lab_run, tmp_path):
    page = open_lab()
    page.run("moe-workbench:show-sidebar")
    page.run("moe-workbench:open", run=lab_run.id)
    page.wait_for_selector(".moe-live-head", state="visible")
    page.run("moe-workbench:open-view", run=lab_run.id, view="expert_load")
    page.wait_for_selector(".moe-lab-panel:visible .moe-expert_load")
    page.run("moe-workbench:runs")
    page.wait_for_selector(".moe-lab-home .moe-lesson")
    before = [label for label in page.tabs() if label != "Launcher"]
    # JupyterLab writes its layout down a second after the last change.
    page.wait_for_timeout(2000)
    page.goto(page.url.partition("?")[0])
    page.wait_for_function("window.jupyterapp")
    page.evaluate("async () => { await window.jupyterapp.restored; }")
    page.wait_for_selector(".moe-lab-home .moe-lesson")
    page.wait_for_selector(f".moe-lab-run[data-run='{lab_run.id}']")
    assert [label for label in page.tabs() if label != "Launcher"] == before
    assert before == ["Invented run", "Expert load · Invented run", "MoE Workbench"]
    page.screenshot(path=str(tmp_path / "reloaded.png"))


def test_it_follows_the_theme(sidebar, lab_run, tmp_path):
    sidebar.run("moe-workbench:open", run=lab_run.id)
    sidebar.wait_for_selector(".moe-live[data-theme=light]")
    sidebar.run("apputils:change-theme", theme="JupyterLab Dark")
    sidebar.wait_for_selector(".moe-live[data-theme=dark]")
    ground = "() => getComputedStyle(document.querySelector('.moe-lab-sidebar')).backgroundColor.match(/\\d+/g)"
    assert max(map(int, sidebar.evaluate(ground)[:3])) < 64
    sidebar.wait_for_timeout(500)
    sidebar.screenshot(path=str(tmp_path / "dark.png"))
    sidebar.run("apputils:change-theme", theme="JupyterLab Light")
    sidebar.wait_for_selector(".moe-live[data-theme=light]")

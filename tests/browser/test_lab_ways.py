"""Other ways to the same in JupyterLab: keys, palette, settings, links, presets, the class, and a missing server."""

import json
import re

import pytest

pytestmark = pytest.mark.browser

LESSON = "Watch a mixture of experts learn"
SETTINGS = "@moe-workbench/lab:plugin"


def save_settings(page, **values):
    save = "([id, text]) => window.jupyterapp.serviceManager.settings.save(id, text)"
    page.evaluate(save, [SETTINGS, json.dumps(values)])


def tab_from(page, start, *, to):
    """From one element to the next one; again if JupyterLab took the focus for its launcher in between."""
    for _ in range(5):
        start.focus()
        page.keyboard.press("Tab")
        if page.evaluate("() => document.activeElement.ariaLabel") == to:
            return
        page.wait_for_timeout(1000)
    raise AssertionError(f"Tab led to {page.evaluate('() => document.activeElement.outerHTML')}, not to {to!r}")


def test_keys_open_the_run_and_pause_it(sidebar, lab_run):
    page = sidebar
    page.keyboard.press("Control+Alt+KeyM")
    page.wait_for_selector(".moe-live-head", state="visible")
    page.keyboard.press("Control+Alt+KeyP")
    page.wait_for_function("() => document.querySelector('.moe-lab-status').innerText.startsWith('Paused')")
    assert lab_run.state["status"] == "paused"


def test_the_sidebar_is_used_by_keys_alone(sidebar, lab_run):
    tab_from(sidebar, sidebar.entry.locator(".moe-lab-open"), to="Pause Invented run")
    sidebar.keyboard.press("Enter")
    sidebar.entry.and_(sidebar.locator("[data-status=paused]")).wait_for()
    assert lab_run.state["status"] == "paused"
    # the list was drawn anew, and the focus is where it was
    sidebar.keyboard.press("Enter")
    sidebar.entry.and_(sidebar.locator("[data-status=running]")).wait_for()
    sidebar.keyboard.press("Shift+Tab")
    sidebar.keyboard.press("Enter")
    sidebar.wait_for_selector(".moe-live-head", state="visible")


def test_the_palette_has_every_command_and_view(sidebar):
    page = sidebar
    page.keyboard.press("Control+Shift+KeyC")
    page.locator(".lm-CommandPalette-input").fill("moe")
    found = page.locator(".lm-CommandPalette-itemLabel").all_inner_texts()
    assert {"Open MoE Workbench", "Show All MoE Runs, and Start a New One", "Show the MoE Sidebar"} <= set(found)
    assert {"Pause or Resume the Active MoE Run", "Stop the Active MoE Run"} <= set(found)
    assert {"Open MoE View: Loss curves", "Open MoE View: Expert load", "Open MoE View: Token strip"} <= set(found)
    page.keyboard.press("Escape")


def test_stopping_by_command_asks_first(sidebar, lab_run):
    page = sidebar
    page.run("moe-workbench:stop")
    page.locator(".jp-Dialog", has_text="Stop Invented run?").get_by_role("button", name="Cancel").click()
    page.wait_for_timeout(300)
    assert lab_run.state["status"] == "running"
    page.run("moe-workbench:stop")
    page.locator(".jp-Dialog").get_by_role("button", name="Stop").click()
    page.wait_for_selector(".moe-lab-status", state="hidden")
    assert lab_run.state["status"] == "stopped"


def test_settings_choose_the_views_and_how_often_they_ask(open_lab, lab_run):
    first = open_lab()
    save_settings(first, views=["expert_load"], framesPerSecond=3, showInStatusBar=False)
    try:
        page, sent = open_lab(), []
        page.on("websocket", lambda opened: opened.on("framesent", lambda text: sent.append(text)))
        page.run("moe-workbench:open", run=lab_run.id)
        page.wait_for_selector(".moe-expert_load")
        page.wait_for_function("() => window.__moe?.stats.length > 0")
        assert page.locator(".moe-loss_curves").count() == 0
        assert page.locator(".moe-lab-status:visible").count() == 0
        assert json.loads(sent[-1])["rate"] == 3
    finally:
        save_settings(first)


def test_a_preset_link_fills_in_its_settings_and_starts_nothing(open_lab, lab, tmp_path):
    before = {state["id"] for state in lab.ask("runs")["runs"]}
    page = open_lab(query="reset&preset=swap_the_router&steps=77&router=expert_choice")
    first = page.locator(".moe-lab-home .moe-lesson").first
    first.wait_for()
    assert first.locator("h4").inner_text() == "Swap the router while it trains"
    assert first.get_by_label("Steps").input_value() == "77"
    page.screenshot(path=str(tmp_path / "link.png"))
    assert {state["id"] for state in lab.ask("runs")["runs"]} <= before, "a run was started"


def test_a_press_starts_a_run_and_opens_it(sidebar, lab):
    page = sidebar
    page.locator(".moe-lab-sidebar").get_by_role("button", name="Start", exact=True).click()
    entry = page.locator(".moe-lab-run", has_text=LESSON)
    entry.wait_for()
    [started] = [state for state in lab.ask("runs")["runs"] if state["kind"] == "child"]
    assert started["owner"] == "ana"
    assert LESSON in page.tabs()
    page.locator(".moe-lab-run[data-status=running]", has_text=LESSON).wait_for(timeout=90_000)
    page.wait_for_selector(".moe-live-head", state="visible")
    page.run("moe-workbench:stop", run=started["id"], isSure=True)
    page.locator(".moe-lab-run[data-status=stopped]", has_text=LESSON).wait_for(timeout=30_000)


def test_an_instructor_sees_the_class_in_counts_and_pauses_it(sidebar, lab_run, tmp_path):
    sidebar.get_by_text("Class", exact=True).click()
    table = sidebar.locator(".moe-lab-roster table")
    table.wait_for()
    assert re.search(r"ana\s+Training\s+[\d,]+\s+\d\.\d\d\s+0", table.inner_text())
    assert "Invented" not in table.inner_text()
    sidebar.get_by_role("button", name="Pause all").click()
    sidebar.get_by_role("button", name="Press again: pause all").click()
    sidebar.locator(".moe-lab-class .moe-lab-life", has_text="1 accepted, 0 refused").wait_for()
    assert lab_run.state["status"] == "paused"
    sidebar.screenshot(path=str(tmp_path / "class.png"))


def test_others_are_shown_no_class(open_lab, lab_run):
    plain = {"ok": True, "version": "0", "runs": 1}
    page = open_lab(before=lambda new: new.route("**/health*", lambda route: route.fulfill(json=plain)))
    page.run("moe-workbench:show-sidebar")
    page.locator(".moe-lab-run").first.wait_for()
    page.locator(".moe-lab-start").wait_for()
    page.wait_for_timeout(300)
    assert not page.get_by_text("Class", exact=True).is_visible()
    assert [url for url in page.asked if "roster" in url] == []


def test_a_server_without_the_workbench_is_told_with_the_way_out(open_lab, tmp_path):
    def without_routes(new):
        new.route("**/workbench/api/**", lambda route: route.fulfill(status=404, json={}))

    page = open_lab(may_complain=True, before=without_routes)
    page.run("moe-workbench:show-sidebar")
    notice = page.locator(".moe-lab-sidebar .moe-lab-notice")
    notice.filter(has_text="This Jupyter server has no MoE Workbench.").wait_for(timeout=5000)
    assert "jupyter server extension enable workbench.lab" in notice.inner_text()
    page.run("moe-workbench:open")
    page.locator(".moe-lab-home .moe-lab-notice", has_text="no MoE Workbench").wait_for(timeout=5000)
    page.screenshot(path=str(tmp_path / "missing.png"))
    asked = len(page.asked)
    page.wait_for_timeout(2000)
    assert [url for url in page.asked[asked:] if "workbench/api" in url] == []
    page.unroute("**/workbench/api/**")
    notice.get_by_role("button", name="Try again now").click()
    notice.wait_for(state="hidden")


def test_a_server_that_does_not_answer_is_spoken_of_within_five_seconds(open_lab):
    held = []
    page = open_lab(before=lambda new: new.route("**/workbench/api/**", lambda route: held.append(route)))
    page.run("moe-workbench:show-sidebar")
    notice = page.locator(".moe-lab-sidebar .moe-lab-notice")
    notice.filter(has_text="Asking the server for its runs").wait_for()
    notice.filter(has_text="answer").filter(has_text="Try again now").wait_for(timeout=6000)
    for route in held:
        route.continue_()

"""What a person does in the live workbench: every control, the keys, what is said back, and the log of it all."""

import json
import re

import pytest

from workbench.hub.commands import python

pytestmark = pytest.mark.browser

OFFLOAD_NAMES = {"policy": ("lru", "lfu"), "prefetcher": ("none", "markov")}
OFFLOAD = {
    "near": "host",
    "slots": 16,
    "least_slots": 2,
    "most_slots": 64,
    "all_slots": 64,
    "pages_each": None,
    "room": {"host": 16},
    "budgets": {"host": "3.0 MiB"},
    "experts": {"device": 0, "host": 14, "disk": 50},
    "policy": "lru",
    "prefetcher": None,
    "host_policy": None,
    "is_inclusive": False,
    "hit_rate": 0.5,
    "requests": 1200,
    "host_computed": None,
    "precision": "lossless",
}
STEPS = "[...window.__moe.clients.values()][0].topics.get('loss_curves').arrays.step.data"


def life(page):
    return page.locator(".moe-live-bar .moe-live-life").inner_text().replace("\n", " ")


def test_pause_resume_and_step_do_what_they_say(page, run, stand):
    page.get_by_role("button", name="Pause").click()
    page.wait_for_selector(".moe-live-chip >> text=Paused")
    assert re.fullmatch(r"Pause applied at step \d+", life(page))
    at = run.state["step"]
    page.get_by_role("button", name="Step", exact=True).click()
    # The button says "Resume" before the page has heard of the step, too: it is pressed when the step is over.
    page.locator(".moe-live-stats [data-fact=Step] dd", has_text=f"{at + 1:,}").wait_for()
    page.wait_for_selector(".moe-live-chip >> text=Paused")
    page.get_by_role("button", name="Resume").click()
    page.wait_for_selector(".moe-live-chip >> text=Training")
    stand.until(lambda: run.state["step"] > at + 3)


def test_a_swap_says_when_it_applies_and_can_be_taken_back(page, run):
    swap = page.get_by_role("button", name=re.compile("^Swap to"))
    assert swap.is_disabled()
    page.get_by_role("combobox", name="Router to swap to").select_option("switch")
    assert re.search(r"applies at step \d+", swap.inner_text())
    assert "top-1 with capacity" in page.locator(".moe-live-means").inner_text()
    swap.click()
    page.wait_for_selector(".moe-live-notice >> text=Swap the router to switch: applied at step")
    assert run.state["router"] == "switch"
    assert page.locator(".moe-live-stats [data-fact=Router] dd").inner_text().strip() == "switch"
    assert (
        page.locator(".moe-live-bar").get_by_role("button", name="Undo: the change from top_k to switch").is_enabled()
    )


def test_a_refusal_says_why(open_run, run, stand):
    page = open_run(run.id, may_fail=True)
    stand.tell(run.state["choices"]["router"].append, {"name": "no such router", "changes": ""})
    stand.say(run)
    page.get_by_role("combobox", name="Router to swap to").select_option("no such router")
    page.get_by_role("button", name=re.compile("^Swap to")).click()
    page.wait_for_selector(".moe-live-life[data-status=refused] >> text=refused: swap_router: name must be")


def test_stop_asks_once(page, run):
    page.get_by_role("button", name="Stop").click()
    page.wait_for_timeout(300)
    assert run.state["status"] == "running"
    page.get_by_role("button", name="Press again to end it").click()
    page.wait_for_selector(".moe-live-notice >> text=Stopped at step")
    assert not page.locator(".moe-live-bar").is_visible()
    assert page.locator(".moe-loss_curves canvas").first.is_visible()


def test_everything_done_is_listed_with_its_python(page, run):
    page.get_by_role("button", name="More").click()
    page.get_by_role("textbox", name="Note").fill("<b>look</b> here")
    page.get_by_role("button", name="Add").click()
    page.get_by_role("button", name="Pause").click()
    page.locator(".moe-live-log summary").click()
    rows = page.locator(".moe-live-log li")
    page.wait_for_function("() => document.querySelectorAll('.moe-live-log li[data-status=applied]').length === 2")
    assert "Pause" in rows.nth(0).inner_text()
    assert "Note: <b>look</b> here" in rows.nth(1).inner_text()
    code = page.locator(".moe-live-log code").inner_text().splitlines()
    assert code[0] == "# an invented run has no code"
    said = [python("annotate", {"text": "<b>look</b> here"}), python("pause", {})]
    assert [line.partition("  # at step ")[0] for line in code[1:]] == said
    rows.nth(0).get_by_role("button").click()
    page.wait_for_selector(".moe-live-log li >> text=Copied")
    assert page.evaluate("navigator.clipboard.readText()") == python("pause", {})


def test_somebody_else_at_the_wheel_is_named_and_can_be_followed(open_run, run, stand):
    page = open_run(run.id, may_fail=True)
    stand.say(run, driver="bo")
    page.wait_for_selector("text=driven by bo")
    page.get_by_role("button", name="Pause").click()
    page.wait_for_selector(".moe-live-notice >> text=This run is driven by bo")
    assert run.state["status"] == "running"
    page.get_by_role("button", name="Take over").click()
    page.wait_for_selector("text=you drive")
    page.get_by_role("button", name="Pause").click()
    stand.until(lambda: run.state["status"] == "paused")


def test_idle_experts_are_a_sentence_with_a_way_to_them(page, run, stand):
    stand.say(run, idle_experts=2, overloaded_experts=1)
    notice = page.locator(".moe-live-notice", has_text="2 of 32 experts are idle")
    notice.wait_for()
    assert "1 expert gets more than twice a fair share" in notice.inner_text()
    notice.get_by_role("button", name="Put this notice away").click()
    stand.say(run, idle_experts=2)
    page.wait_for_timeout(500)
    assert notice.count() == 0
    stand.say(run, idle_experts=3)
    page.locator(".moe-live-notice", has_text="3 of 32 experts are idle").wait_for()


def test_steering_is_named_and_taken_back(page, run, stand):
    stand.say(run, steering=[{"layer": 1, "expert": 3, "kind": "ban", "bias": None}])
    notice = page.locator(".moe-live-notice", has_text="Expert 3 of layer 1 is banned")
    notice.get_by_role("button", name="Take it back").click()
    stand.until(lambda: run.state["steering"] == [])
    notice.wait_for(state="detached")


def test_one_choice_goes_through_all_views(page, run):
    page.wait_for_function(f"() => {STEPS}.length > 10")
    page.get_by_role("button", name="Pause").click()
    page.wait_for_selector(".moe-live-chip >> text=Paused")
    page.locator(".moe-loss_curves canvas").first.focus()
    for key in ("Home", "Enter"):
        page.keyboard.press(key)
    assert page.locator(".moe-expert_load .moe-lead").inner_text().startswith("At step 1,")
    assert page.evaluate("() => window.model.get('selection').step") == 1


def test_the_keys_work_inside_the_view_and_nowhere_else(page, run, stand):
    page.wait_for_function(f"() => {STEPS}.length > 3")
    page.evaluate("() => document.activeElement.blur()")
    page.keyboard.press("Space")
    page.wait_for_timeout(300)
    assert run.state["status"] == "running"
    page.get_by_role("tab", name="Training").focus()
    page.keyboard.press("?")
    assert page.get_by_text("take one step, then pause").is_visible()
    page.locator(".moe-loss_curves canvas").first.focus()
    page.keyboard.press("Space")
    stand.until(lambda: run.state["status"] == "paused")
    at = run.state["step"]
    page.keyboard.press(".")
    stand.until(lambda: run.state["step"] == at + 1)
    page.get_by_role("button", name="More").press("Enter")
    note = page.get_by_role("textbox", name="Note")
    note.press_sequentially("u . ?")
    assert note.input_value() == "u . ?"


def test_a_swap_and_its_undo_need_no_mouse(page, run, stand):
    page.wait_for_function("() => document.querySelector('.moe-main')")
    page.locator(".moe-main").focus()
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    assert page.evaluate("() => document.activeElement.tagName") == "SELECT"
    page.keyboard.type("switch")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    stand.until(lambda: run.state["router"] == "switch")
    page.wait_for_selector(".moe-live-bar >> text=Undo: the change")
    page.keyboard.press("u")
    stand.until(lambda: any(record["op"] == "undo" for record in run.records.values()))


def test_a_viewer_sees_and_does_not_drive(open_run, run, stand):
    page = open_run(run.id, roles={"role": "viewer"})
    page.wait_for_selector("text=you watch")
    assert not page.locator(".moe-live-bar").is_visible()
    assert page.locator(".moe-loss_curves canvas").first.is_visible()


def test_the_records_of_others_are_shown_too(page, run, stand):
    code, body = stand.request(f"runs/{run.id}/commands", {"id": "other", "op": "annotate", "args": {"text": "seen"}})
    assert (code, body["status"]) == (202, "accepted")
    page.locator(".moe-live-log summary").click()
    page.wait_for_selector(".moe-live-log li >> text=Note: seen")
    assert json.loads(json.dumps(run.records["other"]["args"])) == {"text": "seen"}


def test_what_was_just_done_can_be_taken_to_a_cell(page, run):
    copy = page.locator(".moe-live-bar").get_by_role("button", name="Copy as Python")
    assert not copy.is_visible()
    page.get_by_role("button", name="Pause").click()
    copy.click()
    page.wait_for_selector(".moe-live-bar >> text=Copied")
    assert page.evaluate("navigator.clipboard.readText()") == python("pause", {})


def offloaded(page, run, stand, **changes):
    """The group of controls of a run whose experts are on disk."""
    names = {kind: [{"name": name, "changes": ""} for name in names] for kind, names in OFFLOAD_NAMES.items()}
    stand.tell(run.state["choices"].update, names)
    stand.tell(run.state.update, {"offload": {**OFFLOAD, **changes}})
    stand.say(run)
    group = page.get_by_role("group", name="Offload")
    group.wait_for()
    return group


def test_where_the_experts_are_is_said_and_changed_while_it_writes(page, run, stand):
    page.get_by_role("button", name="More").click()
    assert page.get_by_role("group", name="Offload").count() == 0
    group = offloaded(page, run, stand)
    said = " ".join(group.inner_text().split())
    assert "room for 16 of 64 experts in memory, in a budget of 3.0 MiB for experts and KV cache" in said
    assert "Now 14 experts are in memory and 50 on disk. 50 % of 1,200 requests found theirs in memory." in said
    assert "Host" not in said and "page" not in said and "Lossless." in said
    room = group.get_by_label("Room for experts in memory")
    assert (room.input_value(), room.get_attribute("min"), room.get_attribute("max")) == ("16", "2", "64")
    for wrong in ("1", "65"):
        room.fill(wrong)
        group.get_by_role("button", name="Set").click()
    assert run.state["offload"]["slots"] == 16, "what the engine would refuse must not be sent"
    room.fill("32")
    group.get_by_role("button", name="Set").click()
    group.get_by_label("Cache policy").select_option("lfu")
    group.get_by_label("Prefetcher").select_option("markov")
    stand.until(lambda: run.state["offload"]["prefetcher"] == "markov")
    assert (run.state["offload"]["slots"], run.state["offload"]["policy"]) == (32, "lfu")
    page.wait_for_function("() => document.body.innerText.includes('32 of 64 experts')")
    page.locator(".moe-live-log summary").click()
    page.wait_for_selector(".moe-live-log li >> text=Cache of 32 slots")


def test_a_tier_in_the_host_is_said_with_its_budget_and_what_it_computed(page, run, stand):
    page.get_by_role("button", name="More").click()
    tiers = {"room": {"device": 16, "host": 31}, "budgets": {"device": "3.0 MiB", "host": "6.0 MiB"}}
    lie = {"experts": {"device": 16, "host": 31, "disk": 17}, "host_policy": "lfu", "is_inclusive": False}
    group = offloaded(page, run, stand, near="device", **tiers, **lie, host_computed=120)
    said = " ".join(group.inner_text().split())
    assert "room for 16 of 64 experts on the device, in a budget of 3.0 MiB" in said
    assert "The host has room for 31 experts in 6.0 MiB, and gives away what goes up; its policy is lfu." in said
    assert "Now 16 experts are on the device, 31 in the host's memory and 17 on disk." in said
    assert "120 requests were computed in the host." in said
    assert group.get_by_label("Room for experts on the device").input_value() == "16"


def test_a_slot_that_holds_a_page_is_called_so(page, run, stand):
    page.get_by_role("button", name="More").click()
    pages = {"slots": 90, "least_slots": 7, "most_slots": 160, "all_slots": 160, "pages_each": 2.5}
    group = offloaded(page, run, stand, **pages)
    said = " ".join(group.inner_text().split())
    assert "room for 90 of 160 pages in memory" in said
    assert "A slot holds a page: an expert is 2.50 pages on average, and is where the slowest of them lies." in said
    assert "Now 14 experts are in memory and 50 on disk." in said
    room = group.get_by_label("Room for pages in memory")
    assert (room.input_value(), room.get_attribute("min"), room.get_attribute("max")) == ("90", "7", "160")

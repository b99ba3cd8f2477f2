"""What every view must do in every host."""

import re

import pytest

from workbench.payloads.container import encode
from workbench.view.bundle import view_module

pytestmark = pytest.mark.browser

NAMELESS = r"^\s*- (?:button|slider|combobox|option|img|table|listbox|region|textbox|spinbutton)\s*(?::.*)?$"
VIEWS = (
    "expert_effect",
    "expert_flow",
    "expert_load",
    "generation",
    "loss_curves",
    "offload_timeline",
    "residency",
    "router_swap",
    "shadow_router",
    "token_strip",
)
# They can do something before there is a number.
WITH_CONTROLS = ("expert_effect", "generation")
LIVE = {"id": "x", "status": "running", "num_layers": 4, "num_experts": 8, "can_undo": "a swap", "can_rewind": True}
LIVE |= {"steering": [{"layer": 0, "expert": 1, "kind": "pin", "bias": 10000.0}]}


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("dark", [False, True])
def test_text_reads_on_its_ground_in_light_and_dark(open_view, payload_of, view, dark):
    page = open_view(view, payload_of(view), dark=dark)
    assert page.locator(".moe-view").get_attribute("data-theme") == ("dark" if dark else "light")
    worst = page.evaluate("() => probe.worstContrast()")
    assert worst[0] >= 4.5, worst


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("dark", [False, True])
def test_axe_finds_nothing_with_the_table_open_or_closed(open_view, payload_of, axe, view, dark):
    page = open_view(view, payload_of(view), dark=dark)
    assert axe(page) == []
    page.evaluate("(run) => model.set('run', run)", LIVE)
    page.get_by_role("button", name="Show the numbers").click()
    assert axe(page) == []


def test_axe_would_find_a_fault(open_view, payload_of, axe):
    page = open_view("loss_curves", payload_of("loss_curves"))
    page.evaluate("() => document.querySelector('.moe-body').append(document.createElement('button'))")
    assert [fault for fault in axe(page) if fault.startswith("button-name")]


@pytest.mark.parametrize("view", VIEWS)
def test_a_number_names_its_source_on_hover(open_view, payload_of, view):
    page = open_view(view, payload_of(view))
    sources = page.locator(".moe-lead, .moe-canvas, .moe-facts, .moe-readout, .moe-numbers").evaluate_all(
        "(all) => all.map((node) => node.title)"
    )
    assert all(re.match("(Read|Recorded|Measured|Counted) ?", text) for text in sources), sources


@pytest.mark.parametrize(
    ("ground", "theme"),
    [("color(srgb 1 1 1)", "light"), ("oklch(0.98 0 0)", "light"), ("oklch(0.2 0 0)", "dark"), ("#101418", "dark")],
)
def test_the_ground_is_read_in_every_notation(open_view, payload_of, settle, ground, theme):
    page = open_view("loss_curves", payload_of("loss_curves"), dark=theme == "light")
    page.evaluate("(ground) => { document.body.style.background = ground; }", ground)
    settle(page)
    assert page.locator(".moe-view").get_attribute("data-theme") == theme


@pytest.mark.parametrize("view", VIEWS)
def test_it_follows_the_page_when_that_turns_dark(open_view, payload_of, view, settle):
    page = open_view(view, payload_of(view))
    page.evaluate("() => { document.body.style.background = '#101418'; }")
    settle(page)
    assert page.locator(".moe-view").get_attribute("data-theme") == "dark"


@pytest.mark.parametrize("view", VIEWS)
def test_it_takes_the_colours_of_jupyter_where_they_are(open_view, payload_of, view, settle):
    page = open_view(view, payload_of(view))
    page.evaluate("() => document.documentElement.style.setProperty('--jp-layout-color0', 'rgb(1, 2, 3)')")
    assert page.locator(".moe-view").evaluate("(node) => getComputedStyle(node).backgroundColor") == "rgb(1, 2, 3)"


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("width", [360, 700])
def test_nothing_is_wider_than_a_narrow_page(open_view, payload_of, view, width):
    page = open_view(view, payload_of(view), width=width)
    page.evaluate("(run) => model.set('run', run)", LIVE)
    assert page.evaluate("() => document.documentElement.scrollWidth") <= width
    assert page.evaluate("() => probe.sticksOut()") == []


@pytest.mark.parametrize("view", VIEWS)
def test_it_fits_again_when_its_container_changes(open_view, payload_of, view, settle):
    page = open_view(view, payload_of(view))
    page.evaluate("() => { document.querySelector('#host').style.width = '500px'; }")
    settle(page)
    for width in page.locator(".moe-canvas").evaluate_all("(all) => all.map((c) => c.getBoundingClientRect().right)"):
        assert width <= 508


@pytest.mark.parametrize("view", VIEWS)
def test_every_control_has_a_name_and_a_size_that_a_finger_can_hit(open_view, payload_of, view):
    page = open_view(view, payload_of(view))
    page.evaluate("(run) => model.set('run', run)", LIVE)
    page.get_by_role("button", name="Show the numbers").click()
    nameless = re.findall(NAMELESS, page.locator("#host").aria_snapshot(), re.MULTILINE)
    assert nameless == []
    small = page.evaluate("() => probe.tooSmall()")
    assert small == []


@pytest.mark.parametrize("view", VIEWS)
def test_the_tab_key_reaches_every_control_and_shows_where_it_is(open_view, payload_of, view):
    page = open_view(view, payload_of(view))
    page.evaluate("(run) => model.set('run', run)", LIVE)
    wanted = page.evaluate("() => probe.tabStops()")
    seen = set()
    for _ in range(wanted + 2):
        page.keyboard.press("Tab")
        inside = page.evaluate("() => probe.focused()")
        if inside is not None:
            seen.add(inside[0])
            assert inside[1] != "none" and inside[2] >= 2
    assert len(seen) == wanted


@pytest.mark.parametrize("view", VIEWS)
def test_closing_leaves_nothing_behind(open_view, payload_of, view, send, settle):
    page = open_view(view, payload_of(view))
    assert page.evaluate("() => window.listenerCount()") >= 2
    page.evaluate("() => window.cleanup()")
    assert page.evaluate("() => document.querySelector('#host').childElementCount") == 0
    assert page.evaluate("() => window.listenerCount()") == 0
    send(page, payload_of(view))
    page.set_viewport_size({"width": 500, "height": 500})
    settle(page)


OPEN_AND_CLOSE = """async ([source, text, times]) => {
  const view = (await import(URL.createObjectURL(new Blob([source], { type: "text/javascript" })))).default;
  const bytes = Uint8Array.from(atob(text), (sign) => sign.charCodeAt(0));
  const traits = { payload: bytes, selection: {} };
  const model = { get: (name) => traits[name], set: () => {}, save_changes: () => {}, on: () => {}, off: () => {} };
  const frame = () => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
  for (let i = 0; i < times; i += 1) {
    const el = document.createElement("div");
    document.body.append(el);
    const close = view.render({ model, el });
    await frame();
    close();
    el.remove();
  }
}"""


@pytest.mark.parametrize("view", VIEWS)
def test_opening_and_closing_twenty_times_keeps_no_memory(new_page, payload_of, b64, view):
    page = new_page()
    session = page.context.new_cdp_session(page)
    session.send("HeapProfiler.enable")

    def heap() -> float:
        session.send("HeapProfiler.collectGarbage")
        return session.send("Runtime.getHeapUsage")["usedSize"] / 1e6

    arguments = [view_module(view), b64(payload_of(view))]
    page.evaluate(OPEN_AND_CLOSE, [*arguments, 3])
    before = heap()
    page.evaluate(OPEN_AND_CLOSE, [*arguments, 20])
    assert heap() - before < 5, "megabytes"
    assert page.locator("canvas").count() == 0


@pytest.mark.parametrize("view", VIEWS)
def test_nothing_recorded_is_a_sentence_that_gives_way_to_the_first_numbers(open_view, payload_of, view, send):
    page = open_view(view, b"")
    if view not in WITH_CONTROLS:
        assert "fills in with the first recorded step" in page.locator(".moe-message").text_content()
    assert not page.get_by_role("button", name="Show the numbers").is_visible()
    send(page, encode(view, {"empty": "Nothing of that kind in this trace."}, {}))
    assert page.locator(".moe-message").text_content() == "Nothing of that kind in this trace."
    send(page, payload_of(view))
    assert not page.locator(".moe-message").is_visible()
    assert page.get_by_role("button", name="Show the numbers").is_visible()
    assert page.locator(".moe-lead").text_content() != ""


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda good: b"GIF89a" + good[6:], "these bytes are not a view payload"),
        (lambda good: good[: len(good) // 2], "the payload is cut off"),
        (lambda good: good[:4] + b"\x09" + good[5:], "payload version 9, this view reads version 1"),
    ],
)
def test_damaged_bytes_are_a_sentence_not_a_blank(browser, tmp_path, payload_of, view, spoil, words, open_quietly):
    page = open_quietly(view, spoil(payload_of(view)))
    assert words in page.locator(".moe-message").text_content()
    assert page.locator(".moe-message").is_visible()


@pytest.mark.parametrize("view", ["expert_load", "loss_curves", "token_strip"])
def test_the_open_table_follows_new_numbers(open_view, payload_of, samples, view, send):
    groups = {
        "expert_load": [{"load": samples.load_group(steps=3, layers=n, dead=None)} for n in (2, 5)],
        "loss_curves": [{"run": samples.run_group(steps=n)} for n in (2, 5)],
        "token_strip": [{"routing": samples.routing_group((("eval", 1, text),))} for text in ("a b", "a b c d e")],
    }[view]
    page = open_view(view, payload_of(view, **groups[0]))
    page.get_by_role("button", name="Show the numbers").click()
    assert page.locator(".moe-table tbody tr").count() == 2
    send(page, payload_of(view, **groups[1]))
    assert page.locator(".moe-table tbody tr").count() == 5

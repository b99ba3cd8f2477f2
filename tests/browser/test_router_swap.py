"""What a swap changed: outlined tokens, bars, flow and losses are those of the diff; undo and rewind are commands."""

import re

import numpy as np
import pytest

from workbench.analysis import diff_routings
from workbench.payloads import router_swap_payload
from workbench.view.theme import okabe_ito

pytestmark = pytest.mark.browser

LIVE = {"id": "x", "status": "running", "step": 130, "can_undo": "the swap to switch", "can_rewind": True}


@pytest.fixture(scope="module")
def pieces(samples):
    return samples.pieces_of(samples.TEXT)


@pytest.fixture(scope="module")
def diff(made, pieces):
    return made.swap_diff(len(pieces))


@pytest.fixture
def page(open_view, payload_of):
    return open_view("router_swap", payload_of("router_swap"))


def rgb(colour: str) -> str:
    return f"rgb({', '.join(str(int(colour[at : at + 2], 16)) for at in (1, 3, 5))})"


@pytest.mark.parametrize("layer", [0, 3])
def test_every_token_has_both_experts_and_the_moved_are_outlined(page, diff, layer):
    page.get_by_role("combobox", name="Layer").select_option(str(layer))
    expert, moved = diff.tokens["expert"].values[:, layer], diff.tokens["moved"].values[layer]
    first = expert[0, :, 0] != expert[1, :, 0]
    lesser = ~first & (moved > 0)
    shown = page.evaluate("() => probe.pairs()")
    assert [(int(box["first"]), int(box["second"])) for box in shown] == list(
        zip(*expert[:, :, 0].tolist(), strict=True)
    )
    assert [box["isMoved"] for box in shown] == first.tolist()
    assert [box["isShifted"] for box in shown] == lesser.tolist()
    assert 0 < first.sum() < len(moved)
    for box, old, new in zip(shown, *expert[:, :, 0], strict=True):
        assert box["grounds"] == [rgb(okabe_ito("light")[e]) for e in (old, new)]
        outline = "solid" if box["isMoved"] else "dotted" if box["isShifted"] else "none"
        assert box["outline"] == outline
        said = {"solid": "another first expert", "dotted": "only a lesser expert differs", "none": "the same"}[outline]
        assert box["label"].endswith(said)
    title = page.locator(".moe-swap-strip .moe-plot-title").text_content()
    assert f"[of {len(moved)} tokens {first.sum()} have another first expert, {lesser.sum()} only" in title


def test_the_sentence_and_the_facts_have_the_losses_with_their_unit(page, diff):
    lead = page.locator(".moe-lead").text_content()
    assert lead.startswith("At step 120 switch took over from top_k. Of the same 45 tokens, ")
    assert f"{float(diff.moved.mean()) * 100:.0f}\u00a0%" in lead
    assert lead.endswith("The loss on them rose from 2.315 to 2.580 nats per token (+0.265).")
    assert page.locator(".moe-facts dd").all_text_contents() == ["2.315", "2.580", "+0.265", "43 ms"]


def test_a_bar_per_layer_has_its_share_and_chooses_the_layer(page, diff):
    bars = page.locator(".moe-bar")
    shares = [float(re.match(r"[\d.]+", text)[0]) for text in page.locator(".moe-bar-text").all_text_contents()]
    assert shares == pytest.approx((diff.moved.values * 100).tolist(), abs=0.51)
    widths = page.locator(".moe-bar-fill").evaluate_all(
        "(all) => all.map((bar) => bar.getBoundingClientRect().width / bar.parentElement.getBoundingClientRect().width)"
    )
    assert widths == pytest.approx(diff.moved.values.tolist(), abs=0.01)
    bars.nth(2).press("Enter")
    assert page.get_by_role("combobox", name="Layer").input_value() == "2"
    assert bars.nth(2).get_attribute("aria-pressed") == "true"


def test_the_flow_names_what_stays_and_what_goes(page, diff):
    flow = diff.flow.values[0]
    page.locator("canvas").first.focus()
    page.keyboard.press("Home")
    text = page.locator(".moe-readout").first.text_content()
    total, stays = flow[0].sum(), flow[0, 0]
    assert text.startswith(
        f"expert 0 before: {percent(total)} of the layer's weight, {percent(stays / total)} of it stays"
    )
    best = int(np.argsort(-np.where(np.arange(9) == 0, 0, flow[0]))[0])
    assert f"goes to expert {best} ({percent(flow[0, best] / total)})" in text
    page.keyboard.press("ArrowRight")
    assert page.locator(".moe-readout").first.text_content().startswith("expert 0 after: ")


def percent(share: float) -> str:
    value = share * 100
    return "0\u00a0%" if share == 0 else f"{value:.1f}\u00a0%" if value < 10 else f"{value:.0f}\u00a0%"


def test_a_token_opens_its_experts_under_both_routers(page, diff):
    page.locator("[data-token='5']").click()
    rows = page.locator(".moe-detail-table tbody tr")
    assert rows.count() == 4
    for layer in range(4):
        cells = [rows.nth(layer).locator("td").nth(side).locator(".moe-chip b").all_text_contents() for side in (0, 1)]
        assert [[int(e) for e in cell] for cell in cells] == diff.tokens["expert"].values[:, layer, 5].tolist()
        mark = rows.nth(layer).locator(".moe-differs").text_content()
        assert (mark in ("≠", "≈")) == bool(diff.tokens["moved"].values[layer, 5] > 0)
    page.keyboard.press("ArrowRight")
    assert page.evaluate("() => document.activeElement.dataset.token") == "6"
    page.keyboard.press("Escape")
    assert page.locator(".moe-detail-table").count() == 0


def test_undo_and_rewind_are_commands_when_a_run_is_live(page):
    assert not page.get_by_role("button", name="Undo").is_visible()
    page.evaluate("(run) => model.set('run', run)", LIVE)
    undo = page.get_by_role("button", name="Undo")
    assert undo.is_enabled() and undo.get_attribute("title") == "Take back: the swap to switch"
    undo.click()
    sent = page.evaluate("() => model.get('command')")
    assert (sent["op"], sent["args"]) == ("undo", {}) and re.fullmatch(r"[A-Za-z0-9_-]{8,64}", sent["id"])
    assert page.locator(".moe-said").first.text_content() == "Sent: undo."
    page.get_by_role("button", name="Rewind").click()
    second = page.evaluate("() => model.get('command')")
    assert second["op"] == "rewind" and second["id"] != sent["id"]


def test_what_became_of_a_command_is_said(page):
    page.evaluate("(run) => model.set('run', run)", LIVE)
    page.get_by_role("button", name="Undo").click()
    for record, words in (
        ({"status": "accepted"}, "Accepted: undo. It takes effect with the next step."),
        ({"status": "applied", "step": 1131}, "Done at step 1,131: undo."),
        (
            {"status": "refused", "reason": "run is driven by ben; take over first"},
            "Refused: undo. run is driven by ben; take over first",
        ),
    ):
        page.evaluate("(record) => model.set('acks', { [model.get('command').id]: record })", record)
        assert page.locator(".moe-said").first.text_content() == words


@pytest.mark.parametrize(
    ("change", "is_shown", "enabled"),
    [
        ({"status": "finished"}, False, [True, True]),
        ({"status": "lost"}, False, [True, True]),
        ({"status": "paused", "can_undo": None}, True, [False, True]),
        ({"status": "waiting", "can_rewind": False}, True, [True, False]),
    ],
)
def test_buttons_follow_what_the_run_can_do(page, change, is_shown, enabled):
    page.evaluate("(run) => model.set('run', run)", LIVE | change)
    buttons = [page.locator(".moe-row .moe-button").nth(i) for i in (0, 1)]
    assert [button.is_visible() for button in buttons] == [is_shown] * 2
    assert [button.is_enabled() for button in buttons] == enabled


def test_hostile_text_stays_text(open_view, made):
    pieces = ["<script>window.hacked = 1</script>", "<img src=x onerror='window.hacked=1'>", "\u202egnp.exe", ""]
    hostile = router_swap_payload(
        made.swap_diff(4), pieces=pieces, before="<b>old</b>", after="<script>1</script>", step=1
    )
    page = open_view("router_swap", hostile)
    texts = [box["text"] for box in page.evaluate("() => probe.pairs()")]
    assert texts[0].startswith("<script>window.hacked") and texts[2:] == ["\\u202egnp.exe", "∅"]
    assert "<script>1</script> took over from <b>old</b>" in page.locator(".moe-lead").text_content()
    page.get_by_role("button", name="Show the numbers").click()
    assert (
        page.evaluate(
            "() => window.hacked === undefined && document.querySelectorAll('.moe-view script, .moe-view img').length"
        )
        == 0
    )


def test_unknown_losses_and_tokens_without_an_expert_are_said_so(open_view, made):
    same = diff_routings([made.routed([[-1, -1], [0, 1]])], [made.routed([[0, 1], [0, 1]])])
    page = open_view("router_swap", router_swap_payload(same, pieces=["a", "b"], before="x", after="y", step=1))
    assert "loss" not in page.locator(".moe-lead").text_content()
    assert page.locator(".moe-facts dd").all_text_contents() == ["no data"] * 4
    assert page.evaluate("() => probe.pairs()")[0]["first"] == "\u2013"


def test_many_layers_and_experts_stay_readable(open_view, made, settle):
    diff = made.swap_diff(200, layers=64, experts=64)
    page = open_view("router_swap", router_swap_payload(diff, pieces=["word,"] * 200, before="a", after="b", step=1))
    assert page.locator(".moe-bar").count() == 64
    assert page.evaluate("() => probe.blankCanvases()") == 0
    page.locator("[data-token='100']").click()
    assert page.locator(".moe-detail-table tbody tr").count() == 64


def test_a_text_without_a_token_is_no_error(open_view):
    nothing = diff_routings([], [])
    page = open_view("router_swap", router_swap_payload(nothing, pieces=[], before="a", after="b", step=1))
    assert page.locator(".moe-lead").text_content().startswith("At step 1 b took over from a. Of the same 0 tokens")
    assert page.locator(".moe-bar").count() == 0

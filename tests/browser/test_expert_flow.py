"""Which experts go together: the picture, the words, the list and the table say what was counted."""

import re

import numpy as np
import pytest

from workbench.analysis import layer_affinity, layer_transition, pair_affinity
from workbench.payloads import expert_flow_payload
from workbench.trace import synthetic_trace
from workbench.view.theme import theme

pytestmark = pytest.mark.browser

MATRIX = "() => probe.scan([%d, 5])"


def expected_colour(ratio: float, mode: str = "light") -> list[int]:
    """Grey at chance; blue to a quarter of it, orange to four times."""
    ends = theme()["diverging"][mode]
    share = max(-1.0, min(1.0, np.log2(ratio) / 2)) if ratio > 0 else -1.0
    middle, end = (
        [int(colour[at : at + 2], 16) for at in (1, 3, 5)]
        for colour in (ends["middle"], ends["low" if share < 0 else "high"])
    )
    return [int(a + (b - a) * abs(share) + 0.5) for a, b in zip(middle, end, strict=True)] + [255]


@pytest.fixture(scope="module")
def trace():
    return synthetic_trace(num_tokens=900, num_layers=3, num_experts=6, skew=0.5, phase="prefill")


def test_the_colour_of_a_pair_is_that_of_its_ratio(open_view, trace, settle):
    page = open_view("expert_flow", expert_flow_payload(trace))
    page.get_by_role("combobox", name="Layer").select_option("1")
    settle(page)
    pairs = pair_affinity(trace).values[1]
    seen = 0
    for text, colour in page.evaluate(MATRIX % 1).items():
        if place := re.match(r"Experts (\d) and (\d) of layer 1 serve the same [\d,.]+ tokens?, .*; (.*)\.$", text):
            ratio = float(pairs[int(place[1]), int(place[2])])
            assert colour == pytest.approx(expected_colour(ratio), abs=2), text
            assert float(place[3].split("\u00d7")[0]) == pytest.approx(ratio, abs=0.051)
            seen += 1
    assert seen == 30


def test_the_next_layer_is_a_flow_and_a_matrix(open_view, trace, settle):
    page = open_view("expert_flow", expert_flow_payload(trace))
    assert not page.locator(".moe-flow-part").is_visible()
    page.get_by_label("Look at").select_option("next")
    settle(page)
    going, apart = layer_transition(trace), layer_affinity(trace)
    flow = page.locator(".moe-flow-part canvas")
    flow.focus()
    readout = page.locator(".moe-flow-part .moe-readout")
    for key, side, index in (
        ("ArrowDown", 0, 0),
        ("End", 0, 5),
        ("ArrowRight", 1, 5),
        ("Home", 1, 0),
        ("ArrowUp", 1, 0),
    ):
        page.keyboard.press(key)
        text = readout.text_content()
        assert text.startswith(f"Expert {index} of layer {side}: "), key
        flows = going.values[0] * going["tokens"].values[0][:, None]
        total = flows.sum(1 - side)[index]
        assert int(re.search(r": (\d+) tokens", text)[1]) == pytest.approx(total, abs=0.51)
        best = int((flows[index] if side == 0 else flows[:, index]).argmax())
        assert f"expert {best} (" in text
    assert page.locator("[aria-live=polite]").text_content() == readout.text_content()
    found = page.evaluate(MATRIX % 2)
    for text, colour in found.items():
        if place := re.match(r"Expert (\d) of layer 0 → expert (\d) of layer 1: .*; ([\d.]+)\u00d7", text):
            ratio = float(apart.values[0, int(place[1]), int(place[2])])
            assert colour == pytest.approx(expected_colour(ratio), abs=2), text


def test_a_pair_that_always_goes_together_is_named_listed_and_chosen(open_view, samples, payload_of):
    routing = samples.routing_group((("eval", 1, "a " * 100),), layers=2, experts=6)
    rng = np.random.default_rng(0)
    count = routing.sizes["token"]
    routing["expert"][0] = rng.random((count, 6)).argsort(-1)[:, :2]
    routing["expert"][0, ::4] = [2, 5]
    page = open_view("expert_flow", payload_of("expert_flow", routing=routing))
    assert "In layer 0 experts 2 and 5 go together most" in page.locator(".moe-lead").text_content()
    page.get_by_role("button", name="2 and 5").click()
    assert page.evaluate("() => model.get('selection')") == {"layer": 0, "expert": 2}
    shared = int(((routing["expert"].values[0] == 2).any(-1) & (routing["expert"].values[0] == 5).any(-1)).sum())
    assert (
        f"Experts 2 and 5 of layer 0 serve the same {shared} tokens" in page.locator(".moe-readout").last.text_content()
    )
    page.get_by_role("button", name="Show the numbers").click()
    row = page.evaluate("() => probe.cells()")[0]
    assert row[0] == "2 and 5" and float(row[1]) == shared and row[4] == "yes"


def test_few_tokens_are_not_judged(open_view, samples, payload_of):
    page = open_view("expert_flow", payload_of("expert_flow", routing=samples.routing_group((("eval", 1, "a b c d"),))))
    assert "too few tokens to tell a pair from chance" in page.locator(".moe-lead").text_content()
    assert page.locator(".moe-links li").count() == 0
    assert page.get_by_text("None stands out from chance").is_visible()


def test_one_expert_per_token_shares_nothing_and_one_layer_leads_nowhere(open_view):
    page = open_view(
        "expert_flow", expert_flow_payload(synthetic_trace(num_tokens=50, num_layers=1, top_k=1, phase="prefill"))
    )
    assert "no two experts ever serve the same token" in page.locator(".moe-lead").text_content()
    assert not page.get_by_label("Look at").is_visible()


def test_kinds_of_tokens_are_chosen_apart(open_view, payload_of):
    page = open_view("expert_flow", payload_of("expert_flow"))
    assert "45 tokens of probe text at step 200, routed by expert_choice" in page.locator(".moe-lead").text_content()
    page.get_by_role("combobox", name="Tokens of").select_option(label="generated text")
    assert "13 tokens of generated text" in page.locator(".moe-lead").text_content()


def test_another_view_chooses_the_layer(open_view, trace):
    page = open_view("expert_flow", expert_flow_payload(trace))
    page.evaluate("() => model.set('selection', { layer: 2, expert: 1 })")
    assert page.get_by_role("combobox", name="Layer").input_value() == "2"


def test_64_layers_of_64_experts_are_drawn(open_view, settle):
    big = synthetic_trace(num_tokens=256, num_layers=64, num_experts=64, phase="prefill")
    page = open_view("expert_flow", expert_flow_payload(big))
    page.get_by_label("Look at").select_option("next")
    settle(page)
    assert page.evaluate("() => probe.blankCanvases()") == 0
    assert "ribbons are drawn" in page.locator(".moe-flow-part .moe-plot-title").text_content()
    assert page.get_by_role("combobox", name="Layer").locator("option").count() == 63

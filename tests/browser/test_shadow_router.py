"""The shadow beside the active router: tokens, confusion, loads and words are those of the trace."""

import re

import numpy as np
import pytest

from workbench.analysis import only, shadow_agreement, shadow_confusion
from workbench.view.theme import cividis

pytestmark = pytest.mark.browser

PROBE = tuple(("eval", step, "a b c d e f g h i j k l") for step in (50, 100))


@pytest.fixture(scope="module")
def routing(samples):
    return samples.with_shadow(samples.routing_group(PROBE, layers=3, experts=6))


@pytest.fixture(scope="module")
def trace(made, routing):
    return made.tree(routing=routing)


@pytest.fixture
def page(open_view, payload_of, routing):
    return open_view("shadow_router", payload_of("shadow_router", routing=routing))


def percent(share: float) -> str:
    value = share * 100
    return "0\u00a0%" if share == 0 else f"{value:.1f}\u00a0%" if value < 10 else f"{value:.0f}\u00a0%"


@pytest.mark.parametrize("layer", [0, 2])
def test_each_token_has_the_first_expert_of_both(page, routing, layer):
    page.get_by_role("combobox", name="Layer").select_option(str(layer))
    newest = routing["step"].values == 100
    order = np.argsort(-routing["weight"].values, axis=-1, kind="stable")
    first = np.take_along_axis(routing["expert"].values, order, -1)[..., 0]
    shown = page.evaluate("() => probe.pairs()")
    assert [int(box["first"].rstrip("\u00d7")) for box in shown] == first[layer][newest].tolist()
    assert [int(box["second"].rstrip("\u00d7")) for box in shown] == first[layer + 3][newest].tolist()
    assert [box["isMoved"] for box in shown] == (first[layer] != first[layer + 3])[newest].tolist()


def test_the_matrix_counts_what_the_analysis_counts(page, trace):
    counted = shadow_confusion(only(trace, steps=range(100, 101)), is_probe=True)["tokens"].values[0]
    seen = 0
    for text, colour in page.evaluate("() => probe.scan([0, 5])").items():
        if place := re.match(
            r"Of the (\d+) tokens? that expert (\d) gets, the shadow takes (?:it too|expert (\d)) for (\d+)", text
        ):
            row = int(place[2])
            column = row if place[3] is None else int(place[3])
            assert int(place[4]) == counted[row, column]
            assert int(place[1]) == counted[row].sum()
            if counted[row, column]:
                level = cividis()[int(counted[row, column] / counted[row].sum() * 255 + 0.5)]
                assert colour == [*(int(level[at : at + 2], 16) for at in (1, 3, 5)), 255]
            seen += 1
    assert seen == (counted.sum(1) > 0).sum() * 6


def test_the_sentence_and_the_bars_are_the_agreement(page, trace):
    found = shadow_agreement(trace, is_probe=True)
    lead = page.locator(".moe-lead").text_content()
    said = "the shadow (switch) and the active router (top_k) agree on"
    assert f"{said} {percent(float(found[1].mean()))} of the assignments" in lead
    assert f"At step 50 it was {percent(float(found[0].mean()))}." in lead
    assert page.locator(".moe-bar-text").all_text_contents()[:3] == [percent(float(value)) for value in found.values[1]]


def test_loads_of_both_stand_side_by_side(page, trace):
    load = shadow_confusion(only(trace, steps=range(100, 101)), is_probe=True)["load"].values[0]
    rows = page.locator(".moe-loads li")
    assert rows.count() == 6
    for expert in range(6):
        words = " | ".join(percent(float(share)) for share in load[expert])
        assert rows.nth(expert).locator(".moe-bar-text").text_content() == words


def test_a_shadow_that_agrees_is_a_diagonal(open_view, samples, payload_of, settle):
    routing = samples.with_shadow(samples.routing_group(PROBE, layers=1, experts=6, slots=1), disagree=0.0)
    page = open_view("shadow_router", payload_of("shadow_router", routing=routing))
    assert "agree on 100\u00a0% of the assignments" in page.locator(".moe-lead").text_content()
    assert page.locator(".moe-moved").count() == 0
    for text in page.evaluate("() => probe.scan([0, 5])"):
        if "the shadow takes expert" in text:
            assert " for 0 (0" in text


def test_without_a_shadow_it_says_how_to_get_one(open_view, samples, payload_of):
    page = open_view("shadow_router", payload_of("shadow_router", routing=samples.routing_group(PROBE)))
    assert "No shadow router watches this run. Set one" in page.locator(".moe-message").text_content()


def test_a_router_that_takes_fewer_of_the_same_is_not_outlined(open_view, samples, payload_of):
    routing = samples.with_shadow(samples.routing_group(PROBE, layers=1, experts=6, slots=2), disagree=0.0)
    page = open_view("shadow_router", payload_of("shadow_router", routing=routing))
    shown = page.evaluate("() => probe.pairs()")
    assert all(box["label"].endswith("one takes fewer of the same") for box in shown)
    assert not any(box["isMoved"] or box["isShifted"] for box in shown)
    assert (
        "0 only another lesser one, 12 merely more or fewer of the same"
        in page.locator(".moe-shadow-strip .moe-plot-title").text_content()
    )
    page.locator("[data-token='0']").click()
    assert page.locator(".moe-differs").text_content() == "\u2282"

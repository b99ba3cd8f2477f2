"""The load heatmap shows the loads that were recorded: in pixels, in words and in its table."""

import math
import re

import numpy as np
import pytest
import xarray as xr

from workbench.view.theme import cividis

pytestmark = pytest.mark.browser


def scanned(page, stride: int = 3):
    """(layer, expert) -> the sentence on it and its colour, by asking the view about every place of the picture."""
    found = {}
    for text, colour in page.evaluate("(stride) => probe.heatmap(stride)", stride).items():
        if place := re.match(r"Layer (\d+), expert (\d+): (.*)", text):
            found[int(place[1]), int(place[2])] = (place[3], colour)
    return found


def expected_colour(load: float, experts: int) -> list[int]:
    """Linear from no load to three times the fair share."""
    share = min(1.0, load * experts / 3)
    colour = cividis()[math.floor(share * 255 + 0.5)]
    return [*(int(colour[at : at + 2], 16) for at in (1, 3, 5)), 255]


def group_of(samples, load: np.ndarray):
    """A load group of one step."""
    group = samples.load_group(steps=1, layers=load.shape[0], experts=load.shape[1], dead=None)
    group["load"][0] = load
    return group


def table(page) -> list[list[str]]:
    page.get_by_role("button", name="Show the numbers").click()
    return page.evaluate("() => probe.cells()")


@pytest.mark.parametrize("scale", [1, 2])
def test_the_colour_under_every_place_is_that_of_the_load_it_names(open_view, payload_of, samples, scale):
    load = np.random.default_rng(3).dirichlet(np.full(8, 2.0), 3).astype(np.float32)
    page = open_view("expert_load", payload_of("expert_load", load=group_of(samples, load)), device_scale_factor=scale)
    found = scanned(page)
    assert found.keys() == {(layer, expert) for layer in range(3) for expert in range(8)}
    for (layer, expert), (text, colour) in found.items():
        value = float(load[layer, expert])
        assert colour == expected_colour(value, 8), (layer, expert)
        said = re.search(r"([\d.]+)\u00a0% of the layer's assignments, ([\d.]+)\u00d7 its fair share", text)
        assert abs(float(said[1]) - value * 100) <= (0.0501 if value < 0.1 else 0.501)
        assert abs(float(said[2]) - value * 8) <= 0.0501


def test_a_dead_expert_is_seen_and_named(open_view, payload_of, samples):
    load = np.full((4, 16), 1 / 15, np.float32)
    load[2, 3] = 0
    load[[0, 1, 3]] = 1 / 16
    page = open_view("expert_load", payload_of("expert_load", load=group_of(samples, load)))
    assert page.locator(".moe-findings li").all_text_contents() == [
        "Layer 2: expert 3 got no tokens (dead while this lasts)."
    ]
    assert "1 expert of 64 got no tokens at all." in page.locator(".moe-lead").text_content()
    found = scanned(page)
    assert found[2, 3] == ("no tokens in this window.", [0, 34, 78, 255])
    assert found[2, 4][1] == expected_colour(1 / 15, 16)


def test_an_expert_that_dies_and_comes_back_is_followed_in_picture_words_and_table(
    open_view, payload_of, samples, send
):
    alive = np.full((2, 8), 1 / 8, np.float32)
    dead = alive.copy()
    dead[1], dead[1, 3] = 1 / 7, 0
    page = open_view("expert_load", payload_of("expert_load", load=group_of(samples, alive)))
    assert table(page)[1][4] == "12.50"
    for load, is_dead in ((dead, True), (alive, False)):
        send(page, payload_of("expert_load", load=group_of(samples, load)))
        text, colour = scanned(page)[1, 3]
        assert (text == "no tokens in this window.") == is_dead
        assert colour == expected_colour(float(load[1, 3]), 8)
        said = "Layer 1: expert 3 got no tokens" in page.locator(".moe-findings").text_content()
        assert said == is_dead
        assert page.evaluate("() => probe.cells()")[1][4] == ("0.00" if is_dead else "12.50")


def test_an_overloaded_and_a_starved_expert_are_named_with_their_share(open_view, payload_of, samples):
    load = np.full((1, 4), 0.25, np.float32)
    load[0] = [0.9, 0.02, 0.04, 0.04]
    page = open_view("expert_load", payload_of("expert_load", load=group_of(samples, load)))
    assert page.locator(".moe-findings li").all_text_contents() == [
        "Layer 0: expert 0 (90\u00a0%, 3.6\u00d7) is overloaded.",
        "Layer 0: expert 1 got under a tenth of a fair share.",
    ]


def test_balanced_layers_have_nothing_that_stands_out(open_view, payload_of, samples):
    page = open_view(
        "expert_load", payload_of("expert_load", load=group_of(samples, np.full((2, 4), 0.25, np.float32)))
    )
    assert page.locator(".moe-findings li").count() == 0
    assert (
        "At step 1, the work is even: no expert takes more than 1.0\u00d7 its fair share. Every expert got"
        in page.locator(".moe-lead").text_content()
    )


def test_a_number_that_is_missing_is_not_drawn_as_zero(open_view, payload_of, samples):
    load = np.full((2, 4), 0.25, np.float32)
    load[1] = [np.nan, 0.5, 0.5, 0]
    page = open_view("expert_load", payload_of("expert_load", load=group_of(samples, load)))
    found = scanned(page)
    assert found[1, 0] == ("no data in this window.", [0, 0, 0, 0])
    assert found[1, 3][0] == "no tokens in this window."
    assert "1.5\u00d7 its fair share" in found[1, 1][0], "the fair share counts the experts that exist"
    assert table(page)[1][:5] == ["layer 1", "no data", "50.00", "50.00", "0.00"]


def test_the_slider_shows_the_loads_of_its_step(open_view, payload_of, samples, settle):
    group = samples.load_group(steps=30)
    page = open_view("expert_load", payload_of("expert_load", load=group))
    slider = page.get_by_role("slider", name="Step")
    slider.focus()
    slider.press("Home")
    for _ in range(6):
        slider.press("ArrowRight")
    settle(page)
    assert page.locator(".moe-lead").text_content().startswith("At step 7,")
    for (layer, expert), (_, colour) in scanned(page).items():
        assert colour == expected_colour(float(group["load"][6, layer, expert]), 16)


@pytest.mark.parametrize(("window", "first"), [("last 10 steps", 20), ("all steps so far", 0)])
def test_a_window_is_the_token_weighted_mean_of_its_steps(open_view, payload_of, samples, window, first):
    group = samples.load_group(steps=30)
    group["tokens"] = ("step", np.arange(30) * 50 + 100)
    page = open_view("expert_load", payload_of("expert_load", load=group))
    page.get_by_label("Average over").select_option(label=window)
    shown = np.array([[float(cell) for cell in row[1:17]] for row in table(page)])
    expected = np.average(group["load"].values[first:].astype(float), axis=0, weights=group["tokens"].values[first:])
    assert np.abs(shown / 100 - expected).max() <= 5.1e-5


def test_phases_are_shown_one_at_a_time(open_view, payload_of, samples):
    train, decoded = samples.load_group(steps=4, dead=None), samples.load_group(steps=3, dead=(1, 1))
    decoded["phase"] = ("step", samples.text_array(["decode"] * 3))
    payload = payload_of("expert_load", load=xr.concat([train, decoded], "step"))
    page = open_view("expert_load", payload)
    assert "got no tokens (dead" not in page.locator(".moe-findings").text_content()
    page.get_by_label("Tokens of").select_option(label="generated text")
    assert "Layer 1: expert 1 got no tokens" in page.locator(".moe-findings").text_content()
    assert page.locator(".moe-lead").text_content().startswith("At forward pass 3,")


def test_arrow_keys_read_the_grid_cell_by_cell(open_view, payload_of, samples):
    page = open_view("expert_load", payload_of("expert_load", load=samples.load_group(steps=3)))
    page.locator("canvas[aria-label^='Load of']").focus()
    readout = page.locator(".moe-readout")
    for key, place in (
        ("ArrowRight", "Layer 0, expert 0:"),
        ("ArrowDown", "Layer 1, expert 0:"),
        ("End", "Layer 1, expert 15:"),
        ("ArrowRight", "Layer 1, expert 15:"),
        ("PageDown", "Layer 3, expert 15:"),
        ("Home", "Layer 3, expert 0:"),
        ("PageUp", "Layer 0, expert 0:"),
    ):
        page.keyboard.press(key)
        assert readout.text_content().startswith(place), key
    assert page.locator("[aria-live=polite]").text_content().startswith("Layer 0, expert 0:")
    page.keyboard.press("Enter")
    assert page.evaluate("() => model.get('selection')") == {"layer": 0, "expert": 0, "step": 3}
    page.keyboard.press("Escape")
    assert readout.text_content() == ""


@pytest.mark.parametrize(("motion", "moves"), [("no-preference", 9), ("reduce", 2)])
def test_play_goes_through_the_steps_slower_for_less_motion(open_view, payload_of, samples, motion, moves):
    page = open_view("expert_load", payload_of("expert_load", load=samples.load_group(steps=40)), reduced_motion=motion)
    page.clock.install()
    page.clock.pause_at(page.evaluate("() => Date.now() + 1000"))
    page.get_by_label("Play through the recorded steps").click()
    page.clock.run_for(999)
    shown = int(page.get_by_role("slider", name="Step").get_attribute("aria-valuetext").split()[-1])
    assert shown in (moves, moves + 1)
    page.get_by_label("Pause").click()
    page.clock.run_for(2000)
    assert int(page.get_by_role("slider", name="Step").get_attribute("aria-valuetext").split()[-1]) == shown


def test_many_layers_and_experts_stay_readable(open_view, payload_of, samples):
    page = open_view("expert_load", payload_of("expert_load", load=samples.load_group(steps=2, layers=64, experts=64)))
    assert len(scanned(page, stride=6)) == 64 * 64
    assert page.locator(".moe-findings li").count() <= 7


def test_the_reader_stays_where_they_are_while_training_goes_on(open_view, payload_of, samples, send):
    page = open_view("expert_load", payload_of("expert_load", load=samples.load_group(steps=10)))
    send(page, payload_of("expert_load", load=samples.load_group(steps=20)))
    assert page.locator(".moe-lead").text_content().startswith("At step 20,")
    page.get_by_role("slider", name="Step").press("Home")
    send(page, payload_of("expert_load", load=samples.load_group(steps=30)))
    assert page.locator(".moe-lead").text_content().startswith("At step 1,")

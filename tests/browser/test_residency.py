"""The residency grid shows where the weights were: in colour, in signs, in words and in its table."""

import json
import re

import pytest

from workbench.payloads import residency_payload
from workbench.view.theme import okabe_ito

pytestmark = pytest.mark.browser

WORDS = ("on the device", "in the host's memory", "on disk")


def rgb(colour: str) -> list[int]:
    return [*(int(colour[at : at + 2], 16) for at in (1, 3, 5)), 255]


COLOURS = [rgb(okabe_ito("light")[0]), rgb(okabe_ito("light")[4]), rgb("#dfe4e9")]


@pytest.fixture(scope="module")
def group(samples):
    return samples.residency_group(samples=12)


@pytest.fixture
def page(open_view, payload_of, group):
    return open_view("residency", payload_of("residency", residency=group))


def scanned(page) -> dict[tuple[int, int], tuple[str, list[int]]]:
    found = {}
    for text, colour in page.evaluate("() => probe.scan([0, 4])").items():
        if place := re.match(r"Layer (\d+), expert (\d+): (.*)", text):
            found[int(place[1]), int(place[2])] = (place[3], colour)
    return found


def go_to(page, settle, steps_right: int) -> None:
    slider = page.get_by_role("slider", name="Step")
    slider.press("Home")
    for _ in range(steps_right):
        slider.press("ArrowRight")
    settle(page)


def test_every_cell_is_that_of_the_trace_at_every_moment(page, group, settle):
    for sample in (0, 5):
        go_to(page, settle, sample)
        found = scanned(page)
        assert len(found) == 4 * 8
        for (layer, expert), (text, colour) in found.items():
            tier = int(group["tier"].values[sample, layer, expert])
            assert text.startswith(WORDS[tier]), (layer, expert)
            assert colour == COLOURS[tier], (layer, expert)


def test_an_eviction_is_seen_and_said_and_taken_back(open_view, samples, made, send):
    group = samples.residency_group(samples=2)
    group["tier"][1] = group["tier"][0]
    page = open_view("residency", residency_payload(made.tree(residency=group)))
    assert "Nothing moved since the sample before." in page.locator(".moe-lead").text_content()
    assert scanned(page)[2, 3][0].startswith(WORDS[0])
    evicted = group.copy(deep=True)
    evicted["tier"][1, 2, 3] = 2
    send(page, residency_payload(made.tree(residency=evicted)))
    text, colour = scanned(page)[2, 3]
    assert text.startswith("on disk, since step 6") and colour == COLOURS[2]
    assert "0 experts came to the device and 1 left it" in page.locator(".moe-lead").text_content()
    page.get_by_role("button", name="Show the numbers").click()
    assert page.evaluate("() => probe.cells()")[2][4 + 3] == "disk"
    send(page, residency_payload(made.tree(residency=group)))
    assert scanned(page)[2, 3][1] == COLOURS[0]
    assert page.evaluate("() => probe.cells()")[2][4 + 3] == "device"


def test_the_counts_are_said(page, group):
    tier = group["tier"].values[-1]
    counts = [int((tier == t).sum()) for t in range(3)]
    lead = page.locator(".moe-lead").text_content()
    device, host, disk = counts
    assert lead.startswith(
        f"At step 16, {device} of 32 experts are on the device, {host} in the host's memory and {disk}"
    )
    came = int(((tier == 0) & (group["tier"].values[-2] != 0)).sum())
    assert f"{came} experts came to the device" in lead
    assert page.locator(".moe-tiers li").all_text_contents()[0].endswith(f"on the device: {counts[0]}")


def test_an_unknown_place_is_not_drawn_as_one(open_view, samples, payload_of):
    group = samples.residency_group(samples=1)
    group["tier"][0, 1, 1] = -1
    page = open_view("residency", payload_of("residency", residency=group))
    text, colour = scanned(page)[1, 1]
    assert text == "where it is was not recorded." and colour not in COLOURS
    assert "1 nobody knows where" in page.locator(".moe-lead").text_content()
    assert not page.get_by_role("slider", name="Step").is_visible(), "one moment needs no slider"


def test_keys_read_the_grid_and_choose(page):
    page.locator("canvas").first.focus()
    readout = page.locator(".moe-readout")
    for key, place in (
        ("ArrowRight", "Layer 0, expert 0:"),
        ("End", "Layer 0, expert 7:"),
        ("PageDown", "Layer 3, expert 7:"),
    ):
        page.keyboard.press(key)
        assert readout.text_content().startswith(place)
    page.keyboard.press("Enter")
    assert page.evaluate("() => model.get('selection')") == {"layer": 3, "expert": 7, "step": 16}
    page.evaluate("() => model.set('selection', { step: 6, layer: 1, expert: 2 })")
    assert readout.text_content().startswith("Layer 1, expert 2:")
    assert page.locator(".moe-lead").text_content().startswith("At step 6,")


def test_a_reader_who_went_back_stays_there(open_view, samples, payload_of, send, settle):
    page = open_view("residency", payload_of("residency", residency=samples.residency_group(samples=5)))
    send(page, payload_of("residency", residency=samples.residency_group(samples=8)))
    assert page.locator(".moe-lead").text_content().startswith("At step 12,"), "at the newest: follows"
    go_to(page, settle, 2)
    send(page, payload_of("residency", residency=samples.residency_group(samples=11)))
    assert page.locator(".moe-lead").text_content().startswith("At step 7,")


def noted(made, group, **terms):
    """A trace whose run noted under what terms it was offloaded."""
    trace = made.tree(residency=group)
    trace.attrs["offload"] = json.dumps(terms)
    return residency_payload(trace)


def test_every_tier_is_shown_with_its_room_and_its_budget(open_view, made, group):
    terms = {"room": {"device": 12, "host": 9}, "budgets": {"device": "3.0 MiB", "host": "1.5 GiB"}, "pages_each": None}
    page = open_view("residency", noted(made, group, **terms))
    device, host, disk = page.locator(".moe-tiers li").all_text_contents()[:3]
    held = [int((group["tier"].values[-1] == tier).sum()) for tier in range(3)]
    assert device.endswith(f"on the device: {held[0]} (room for 12 experts, budget 3.0 MiB)")
    assert host.endswith(f"in the host's memory: {held[1]} (room for 9 experts, budget 1.5 GiB)")
    assert disk.endswith(f"on disk: {held[2]}")


def test_without_a_device_the_memory_is_near_and_what_came_is_marked(open_view, made, samples):
    group = samples.residency_group(samples=2)
    group["tier"][:] = 2
    group["tier"][1, 2, 3] = 1
    terms = {"room": {"host": 40}, "budgets": {"host": "3.0 MiB"}, "pages_each": 2.5}
    page = open_view("residency", noted(made, group, **terms))
    keys = page.locator(".moe-tiers li").all_text_contents()
    assert [key[1:] for key in keys[:2]] == [
        "in the host's memory: 1 (room for 40 pages, budget 3.0 MiB)",
        "on disk: 31",
    ]
    assert keys[2] == "an expert is 2.50 pages on average, and shown where the slowest of them lies"
    assert "1 expert came to the host's memory and 0 left it" in page.locator(".moe-lead").text_content()


def test_without_offload_it_says_so(open_view, samples, payload_of):
    page = open_view("residency", payload_of("residency", load=samples.load_group(steps=1)))
    assert page.locator(".moe-message").text_content() == "This run keeps every expert in memory: no offload."


def test_a_made_up_run_wears_a_badge(open_view, samples, made):
    trace = made.tree(residency=samples.residency_group())
    trace.attrs["synthetic"] = True
    page = open_view("residency", residency_payload(trace))
    assert page.locator(".moe-badge").text_content() == "synthetic"
    assert "no model was measured" in page.locator(".moe-notes").text_content()


def test_64_layers_of_64_experts_are_told_apart(open_view, samples, payload_of):
    group = samples.residency_group(samples=2, layers=64, experts=64, on_device=8)
    page = open_view("residency", payload_of("residency", residency=group))
    found = scanned(page)
    assert len(found) == 64 * 64
    drawn = {place: colour for place, (_, colour) in found.items() if colour[3] == 255}
    assert len(drawn) > 3000, "the others were asked on the line between two cells"
    assert [place for place, colour in drawn.items() if colour != COLOURS[int(group["tier"].values[1][place])]] == []

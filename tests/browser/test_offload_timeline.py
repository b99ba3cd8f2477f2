"""The timeline of offloading: bars, waits and names are those of the recorded events."""

import json
import re

import numpy as np
import pytest

from workbench.payloads import offload_timeline_payload
from workbench.view.theme import okabe_ito

pytestmark = pytest.mark.browser

HUES = {"hit": 0, "prefetch": 4, "miss": 5}  # a late prefetch is striped


@pytest.fixture(scope="module")
def group(samples):
    return samples.offload_group(tokens=20)


@pytest.fixture
def page(open_view, payload_of, group):
    return open_view("offload_timeline", payload_of("offload_timeline", offload=group))


def rgb(colour: str) -> list[int]:
    return [int(colour[at : at + 2], 16) for at in (1, 3, 5)]


def test_as_much_of_each_colour_as_there_were_events(page, group):
    counts = {kind: int((group["kind"].values == kind).sum()) for kind in HUES}
    pixels = {
        kind: page.evaluate("(wanted) => probe.countColour(wanted)", [0, *rgb(okabe_ito("light")[hue])])
        for kind, hue in HUES.items()
    }
    shares = {kind: pixels[kind] / sum(pixels.values()) for kind in HUES}
    for kind, count in counts.items():
        assert shares[kind] == pytest.approx(count / sum(counts.values()), abs=0.02), kind


def test_the_longest_wait_is_named_and_chooses_its_token_and_layer(page):
    first = page.locator(".moe-stalls li").first
    assert first.text_content() == "25.0 msexpert 7 of layer 2, missed: step 203"
    first.get_by_role("button").press("Enter")
    assert page.evaluate("() => model.get('selection')") == {"step": 203, "layer": 2, "expert": 7}
    assert page.locator(".moe-readout").text_content().startswith("step 203: ")


def test_a_wait_on_a_recorded_token_chooses_it_in_all_views(open_view, samples, payload_of, group):
    routing = samples.routing_group((("prefill", 200, "Once upon"),), decode=" a time<script>")
    routing["step"][2:] = np.arange(201, 201 + routing.sizes["token"] - 2)
    page = open_view("offload_timeline", payload_of("offload_timeline", offload=group, routing=routing))
    assert "\u201c<\u201d, step 203" in page.locator(".moe-stalls li").first.text_content()
    page.locator(".moe-stalls button").first.click()
    token = int(np.flatnonzero(routing["step"].values == 203)[0])
    assert page.evaluate("() => model.get('selection')") == {"step": 203, "token": token, "layer": 2, "expert": 7}


def test_keys_read_token_by_token(page, group):
    page.locator("canvas").focus()
    readout = page.locator(".moe-readout")
    for key, step in (("ArrowRight", 200), ("End", 219), ("ArrowLeft", 218), ("PageUp", 216), ("Home", 200)):
        page.keyboard.press(key)
        assert readout.text_content().startswith(f"step {step}: "), key
        here = group["step"].values == step
        text = readout.text_content()
        hits = int(((group["kind"].values == "hit") & here).sum())
        assert f"{hits} hit" in text
        waited = float(group["stall_seconds"].values[here].sum()) * 1000
        assert float(re.search(r"waited ([\d.]+) ms", text)[1]) == pytest.approx(waited, rel=6e-3, abs=1e-9)
    page.keyboard.press("Enter")
    assert page.evaluate("() => model.get('selection')") == {"step": 200}


def test_the_sentence_has_all_requests_and_the_whole_wait(page, group):
    kind, stall = group["kind"].values, group["stall_seconds"].values
    requests = int((kind != "evict").sum())
    ready = int(np.isin(kind, ("hit", "prefetch")).sum())
    lead = page.locator(".moe-lead").text_content()
    assert lead.startswith(
        f"Over 20 tokens, {ready / requests * 100:.0f}\u00a0% of {requests} requests found their expert at hand."
    )
    assert float(re.search(r"waited ([\d.]+) ms in all", lead)[1]) == pytest.approx(stall.sum() * 1000, rel=6e-3)


def test_half_the_cache_means_more_misses_and_the_picture_says_so(open_view, samples, made, send):
    group = samples.offload_group(tokens=20)
    page = open_view("offload_timeline", offload_timeline_payload(made.tree(offload=group)))
    orange = [0, *rgb(okabe_ito("light")[5])]
    before = page.evaluate("(wanted) => probe.countColour(wanted)", orange)
    worse = group.copy(deep=True)
    worse["kind"] = ("event", samples.text_array(["miss" if k == "hit" else str(k) for k in group["kind"].values]))
    send(page, offload_timeline_payload(made.tree(offload=worse)))
    assert page.evaluate("(wanted) => probe.countColour(wanted)", orange) > 2 * before
    assert "17\u00a0% of" in page.locator(".moe-lead").text_content()


def test_nothing_that_waits_is_said_so(open_view, samples, payload_of):
    group = samples.offload_group(tokens=5)
    group["stall_seconds"][:] = np.nan
    page = open_view("offload_timeline", payload_of("offload_timeline", offload=group))
    assert page.get_by_text("Nothing ever waited.").is_visible()
    assert "waited 0 ms in all" in page.locator(".moe-lead").text_content()


def test_many_tokens_share_columns_that_keep_the_longest_wait(open_view, samples, payload_of):
    page = open_view(
        "offload_timeline", payload_of("offload_timeline", offload=samples.offload_group(tokens=2000, layers=2))
    )
    assert (
        "a column is 5 tokens: their mean, and the longest wait" in page.locator(".moe-plot-title").first.text_content()
    )
    assert page.evaluate("() => probe.blankCanvases()") == 0


def test_without_offload_it_says_so(open_view, samples, payload_of):
    page = open_view("offload_timeline", payload_of("offload_timeline", load=samples.load_group(steps=1)))
    assert "no offload" in page.locator(".moe-message").text_content()


def test_a_made_up_run_wears_a_badge(open_view, made, group):
    trace = made.tree(offload=group)
    trace.attrs["synthetic"] = True
    page = open_view("offload_timeline", offload_timeline_payload(trace))
    assert page.locator(".moe-badge").text_content() == "synthetic"


def test_what_the_host_computed_and_what_a_page_is_are_said(open_view, made, samples):
    group = samples.offload_group(tokens=8)
    group["kind"][group["kind"] == "hit"] = "host_compute"
    trace = made.tree(offload=group)
    trace.attrs["offload"] = json.dumps({"room": {"device": 9}, "budgets": {"device": "1 MiB"}, "pages_each": 4.0})
    page = open_view("offload_timeline", offload_timeline_payload(trace))
    kinds = group["kind"].values
    requests = int((kinds != "evict").sum())
    ready, computed = (int((kinds == kind).sum()) / requests for kind in ("prefetch", "host_compute"))
    lead = page.locator(".moe-lead").text_content().replace("\u00a0", " ")
    assert f"{ready:.0%} of {requests} requests found their page at hand".replace("%", " %") in lead
    assert f"{computed:.0%} were computed on the host, where theirs lay".replace("%", " %") in lead
    assert "Requests are for pages: an expert is 4 pages." in lead
    assert "[pages of experts asked for" in page.locator(".moe-offload_timeline").text_content()

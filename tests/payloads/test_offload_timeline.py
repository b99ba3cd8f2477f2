"""Cache events token by token, as a payload."""

import numpy as np
import pytest

from workbench.payloads import offload_timeline_payload


def test_events_are_counted_by_token_and_kind(decode, samples, trace_of):
    group = samples.offload_group()
    header, arrays = decode(offload_timeline_payload(trace_of(offload=group)))
    for i, (step, token) in enumerate(zip(arrays["step"], arrays["token"], strict=True)):
        here = (group["step"].values == step) & (group["token"].values == token)
        for k, name in enumerate(header["kinds"]):
            assert arrays["counts"][i, k] == (group["kind"].values[here] == name).sum()
        assert arrays["stall"][i] == pytest.approx(group["stall_seconds"].values[here].sum())
        assert arrays["bytes"][i] == group["bytes"].values[here].sum()
    assert arrays["totals"].sum() == group.sizes["event"]
    assert arrays["sums"][0] == pytest.approx(float(group["stall_seconds"].sum()))


def test_the_longest_wait_is_named_first(decode, samples, trace_of):
    header, arrays = decode(offload_timeline_payload(trace_of(offload=samples.offload_group())))
    first = {name: arrays[f"stalls.{name}"][0] for name in ("moment", "layer", "expert", "seconds")}
    assert first == {"moment": 3, "layer": 2, "expert": 7, "seconds": 0.025}
    assert header["kinds"][arrays["stalls.kind"][0]] == "miss"
    assert (np.diff(arrays["stalls.seconds"]) <= 0).all()


def test_a_token_that_was_recorded_has_its_text(decode, samples, trace_of):
    routing = samples.routing_group((("eval", 200, "x y"), ("prefill", 200, "Once upon")), decode=" a time")
    routing["step"][-2:] = [201, 202]
    _, arrays = decode(offload_timeline_payload(trace_of(offload=samples.offload_group(), routing=routing)))
    header, _ = decode(offload_timeline_payload(trace_of(offload=samples.offload_group(), routing=routing)))
    assert header["pieces"][:4] == ["Once", " a", " time", ""]
    assert arrays["index"][:4].tolist() == [2, 4, 5, -1]


def test_a_long_run_keeps_the_newest_tokens_and_all_totals(decode, samples, trace_of):
    header, arrays = decode(offload_timeline_payload(trace_of(offload=samples.offload_group(tokens=50)), max_moments=5))
    assert arrays["step"].tolist() == list(range(245, 250))
    assert "Showing the newest 5 of 50 tokens; totals count all." in header["statements"]
    assert arrays["totals"].sum() == samples.offload_group(tokens=50).sizes["event"]
    assert arrays["stalls.moment"].min() >= 0


def test_an_event_without_a_time_is_not_a_wait(decode, samples, trace_of):
    group = samples.offload_group(tokens=2)
    group["stall_seconds"][:] = np.nan
    _, arrays = decode(offload_timeline_payload(trace_of(offload=group)))
    assert arrays["sums"][0] == 0
    assert arrays["stalls.moment"].size == 0


def test_before_the_first_text_it_says_what_it_waits_for(decode, trace_of):
    trace = trace_of()
    trace.attrs["offload"] = "{}"
    assert "nothing was asked for yet" in decode(offload_timeline_payload(trace))[0]["empty"]


def test_without_offload_it_says_so(decode, trace_of):
    assert "no offload" in decode(offload_timeline_payload(trace_of()))[0]["empty"]

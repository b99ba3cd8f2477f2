"""Two routers on the same tokens as a payload."""

import numpy as np
import pytest

from workbench.analysis import only, shadow_agreement, shadow_confusion
from workbench.payloads import shadow_router_payload

PROBE = (("eval", 50, "a b c d e f"), ("eval", 100, "a b c d e f"))


def test_both_sides_are_those_of_the_trace(decode, samples, trace_of):
    routing = samples.with_shadow(samples.routing_group(PROBE, layers=3))
    header, arrays = decode(shadow_router_payload(trace_of(routing=routing)))
    last = routing["step"].values == 100
    expert = routing["expert"].transpose("token", "site", "slot").values[last]
    assert np.array_equal(arrays["expert"][0], expert[:, :3])
    assert np.array_equal(arrays["expert"][1], expert[:, 3:])
    assert header["routers"] == ["top_k", "switch"]
    assert header["pieces"] == ["a", " b", " c", " d", " e", " f"]
    assert (header["tokens_of"], header["at"], header["layers"]) == ("the probe text", 100, [0, 1, 2])


def test_agreement_and_confusion_are_those_of_the_analysis(decode, samples, trace_of):
    trace = trace_of(routing=samples.with_shadow(samples.routing_group(PROBE)))
    _, arrays = decode(shadow_router_payload(trace))
    found = shadow_agreement(trace, is_probe=True)
    assert np.allclose(arrays["agreement"], found.values)
    assert arrays["step"].tolist() == [50, 100]
    newest = shadow_confusion(only(trace, steps=range(100, 101)), is_probe=True)
    assert np.array_equal(arrays["confusion"], newest["tokens"].values)
    assert np.allclose(arrays["load"][:, 1], newest["load"].sel(router="shadow"), equal_nan=True)
    assert arrays["confusion"].sum() == 4 * 6


@pytest.mark.parametrize(("decode_text", "name", "count"), [("", "prompts", 4), (" x y z", "prompts", 4)])
def test_without_a_probe_the_first_phase_that_was_watched_counts(decode, samples, trace_of, decode_text, name, count):
    routing = samples.routing_group((("prefill", 5, "a b c d"),), decode=decode_text)
    header, arrays = decode(shadow_router_payload(trace_of(routing=samples.with_shadow(routing))))
    assert header["tokens_of"] == name
    assert arrays["expert"].shape[1] == count


def test_only_the_newest_shadow_counts(decode, samples, trace_of):
    routing = samples.routing_group(PROBE, layers=2)
    both = samples.with_shadow(routing)
    both["is_routed"][2:] = both["is_routed"][2:] & (routing["step"].values == 100)
    _, arrays = decode(shadow_router_payload(trace_of(routing=both)))
    assert arrays["step"].tolist() == [100]


def test_a_long_text_is_cut_and_the_view_says_so(decode, samples, trace_of):
    routing = samples.with_shadow(samples.routing_group((("eval", 1, "a " * 30),)))
    header, arrays = decode(shadow_router_payload(trace_of(routing=routing), max_tokens=10))
    assert arrays["expert"].shape[1] == len(header["pieces"]) == 10
    assert f"Of {routing.sizes['token']} tokens the newest 10 are shown" in header["statements"][-1]


def test_without_a_shadow_it_says_how_to_get_one(decode, samples, trace_of):
    for trace in (trace_of(), trace_of(routing=samples.routing_group(PROBE))):
        assert "No shadow router watches this run. Set one" in decode(shadow_router_payload(trace))[0]["empty"]

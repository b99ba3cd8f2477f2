"""Where the weights of the experts were, as a payload."""

import json

import numpy as np

from workbench.payloads import residency_payload


def test_the_tiers_are_those_of_the_trace(decode, samples, trace_of):
    group = samples.residency_group()
    header, arrays = decode(residency_payload(trace_of(residency=group)))
    assert np.array_equal(arrays["tier"], group["tier"].values)
    assert arrays["step"].tolist() == list(range(5, 25))
    assert header["tiers"] == ["device", "host", "disk"]


def test_a_long_run_is_thinned_and_says_so(decode, samples, trace_of):
    group = samples.residency_group(samples=500)
    header, arrays = decode(residency_payload(trace_of(residency=group), max_cells=32 * 100))
    assert len(arrays["tier"]) == 100
    assert arrays["sample"][[0, -1]].tolist() == [0, 499]
    assert "Showing 100 of 500 recorded samples" in header["statements"][0]


def test_a_synthetic_trace_says_so(decode, samples, trace_of):
    trace = trace_of(residency=samples.residency_group())
    trace.attrs["synthetic"] = True
    header, _ = decode(residency_payload(trace))
    assert header["badge"] == "synthetic"
    assert "source" not in header


def test_without_offload_it_says_so(decode, trace_of):
    assert decode(residency_payload(trace_of()))[0]["empty"] == "This run keeps every expert in memory: no offload."


def test_the_terms_are_those_that_the_run_noted(decode, samples, trace_of):
    trace = trace_of(residency=samples.residency_group())
    nothing = {"room": {}, "budgets": {}, "pages_each": None}
    assert {name: decode(residency_payload(trace))[0][name] for name in nothing} == nothing
    terms = {"room": {"device": 4}, "budgets": {"device": "1.0 MiB"}, "pages_each": 2.5}
    trace.attrs["offload"] = json.dumps({**terms, "policy": "lru"})
    header = decode(residency_payload(trace))[0]
    assert {name: header[name] for name in terms} == terms and "policy" not in header

"""Where the weights of the experts were, as a payload."""

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

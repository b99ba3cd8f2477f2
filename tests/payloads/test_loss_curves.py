"""The `/run` group as a payload."""

import numpy as np

from workbench.payloads import loss_curves_payload


def test_the_numbers_are_those_of_the_trace(decode, samples, trace_of):
    run = samples.run_group(steps=60, every=20)
    header, arrays = decode(loss_curves_payload(trace_of(run=run)))
    assert header["series"] == ["loss", "lr", "grad_norm", "tokens_per_second", "wall_seconds"]
    for name in header["series"]:
        assert np.array_equal(arrays[name], run[name].values), name
    assert arrays["step"].tolist() == list(range(1, 61))


def test_evaluations_are_the_rows_that_hold_a_number(decode, samples, trace_of):
    run = samples.run_group(steps=60, every=20)
    header, arrays = decode(loss_curves_payload(trace_of(run=run)))
    assert arrays["eval_step"].tolist() == [1, 20, 40, 60]
    assert header["domains"] == list(samples.DOMAINS)
    assert np.array_equal(arrays["eval_loss"], run["eval_loss"].values[[0, 19, 39, 59]])


def test_units_are_those_of_the_trace_in_words(decode, samples, trace_of):
    run = samples.run_group(steps=5)
    assert decode(loss_curves_payload(trace_of(run=run)))[0]["units"] == {
        "loss": "nats per token",
        "eval_loss": "bits per byte",
    }
    run["loss"].attrs["units"] = "furlong"
    assert decode(loss_curves_payload(trace_of(run=run)))[0]["units"]["loss"] == "furlong"


def test_a_loss_that_is_not_finite_stays_so(decode, samples, trace_of):
    run = samples.run_group(steps=5)
    run["loss"][2] = np.nan
    run["loss"][3] = np.inf
    _, arrays = decode(loss_curves_payload(trace_of(run=run)))
    assert np.isnan(arrays["loss"][2]) and np.isposinf(arrays["loss"][3])


def test_thinning_keeps_both_ends_and_every_evaluation_and_says_so(decode, samples, trace_of):
    run = samples.run_group(steps=1000, every=30)
    header, arrays = decode(loss_curves_payload(trace_of(run=run), max_points=100))
    assert len(arrays["step"]) == 100
    assert arrays["step"][[0, -1]].tolist() == [1, 1000]
    assert np.array_equal(arrays["loss"], run["loss"].sel(step=arrays["step"]).values)
    assert len(arrays["eval_step"]) == int(np.isfinite(run["eval_loss"].values).any(1).sum())
    assert header["statements"] == ["Showing 100 of 1,000 recorded steps, evenly spaced."]


def test_without_evaluations_there_are_none(decode, samples, trace_of):
    run = samples.run_group(steps=5).drop_vars(["eval_loss", "domain"])
    header, arrays = decode(loss_curves_payload(trace_of(run=run)))
    assert header["domains"] == []
    assert arrays["eval_loss"].shape == (0, 0)


def test_a_trace_without_training_says_so(decode, trace_of):
    header, arrays = decode(loss_curves_payload(trace_of()))
    assert header["empty"] == "No training step has been recorded in this trace."
    assert arrays == {}


def test_a_router_swap_is_an_event_in_words(decode, samples, trace_of):
    trace = trace_of(run=samples.run_group(steps=200), control=samples.control_group(step=120))
    (event,) = decode(loss_curves_payload(trace))[0]["events"]
    assert event["step"] == 120
    assert event["short"] == "router changed to expert_choice"
    assert event["label"] == "router changed to expert_choice (capacity_factor 2.0)"
    assert event["detail"].startswith("top_k -> expert_choice: all 16 experts")

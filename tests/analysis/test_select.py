"""A trace cut down is a trace."""

import inspect

import numpy as np
import pytest
import xarray as xr

from workbench.analysis import co_activation, expert_load, fluctuation, only
from workbench.trace import require_valid, synthetic_trace

KEPT = [[[True, False], [True, True]]]


@pytest.fixture
def run(traced):
    """Steps 1 to 3 of training with a probe at 1, and a decode step at 3."""
    one = {"expert": [[[0, 1], [2, 3]]], "kept": KEPT}
    probe = {"expert": [[[0, 1]]], "phase": "prefill", "is_probe": True}
    steps = [one | {"step": step} for step in (1, 2, 3)]
    return traced(steps[0], probe, *steps[1:], {"expert": [[[3, 0]]], "phase": "decode", "step": 3})


def test_nothing_asked_changes_nothing(run):
    same = only(run)
    for name in run.children:
        xr.testing.assert_identical(same[name].to_dataset(), run[name].to_dataset())
    assert same.attrs == run.attrs


def test_steps_and_phase_cut_routing_and_load(run):
    cut = only(run, steps=range(2, 4), phase="train")
    require_valid(cut)
    assert cut["routing"]["step"].values.tolist() == [2, 2, 3, 3]
    assert expert_load(cut)["step"].values.tolist() == [2, 3]
    assert only(run, steps=range(1, 4, 2), phase="train")["load"]["step"].values.tolist() == [1, 3]


def test_only_what_was_kept_is_left(run):
    cut = only(run, phase="train", is_kept=True)
    require_valid(cut)
    assert cut["routing"]["expert"].values[0].tolist() == [[0, -1], [2, 3]] * 3
    assert cut["routing"]["expert"].dtype == np.int16
    assert cut["routing"]["expert"].attrs == run["routing"]["expert"].attrs
    assert co_activation(run, phase="train").sel(layer=0, expert=0, other=1) == 0.5
    assert co_activation(cut).sel(layer=0, expert=0, other=1) == 0


def test_one_iteration_is_chosen(traced):
    trace = traced({"expert": [[[0]]], "also": [{"expert": [[[1]]], "iteration": 1}]})
    with pytest.raises(ValueError, match=r"ran 2 times, iterations \[0, 1\].*only\(trace, iteration=0\)"):
        co_activation(trace)
    for iteration in (0, 1):
        found = co_activation(only(trace, iteration=iteration)).values[0]
        assert np.diag(found)[:2].tolist() == [1.0 - iteration, float(iteration)]


def test_a_cut_that_leaves_nothing_says_what_there_is(run):
    with pytest.raises(LookupError, match=r"no routing is left for steps=range\(7, 9\); the trace has steps 1 to 3"):
        only(run, steps=range(7, 9))
    with pytest.raises(LookupError, match=r"iteration=4; .*train, prefill, decode, iterations \[0\]"):
        only(run, iteration=4)
    # below the check of types, which only tests have.
    with pytest.raises(ValueError, match="phase must be one of train, eval, prefill, decode; got 'chat'"):
        inspect.unwrap(only)(run, phase="chat")


def test_a_trace_of_generation_without_probe_is_cut_too():
    cut = only(synthetic_trace(num_tokens=10), steps=range(5))
    assert (cut["routing"].sizes["token"], cut["load"].sizes["step"]) == (5, 5)
    with pytest.raises(LookupError, match="the trace holds no tokens of the probe text"):
        fluctuation(cut)

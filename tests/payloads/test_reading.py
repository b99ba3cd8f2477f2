"""What all payloads need from a trace."""

import json

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from workbench.payloads.reading import control_events, offload_terms, thin


def control(samples, *commands: tuple[int, str, dict]) -> xr.DataTree:
    group = samples.control_group()
    rows = xr.concat([group] * len(commands), "event")
    rows["applied_step"] = ("event", [step for step, _, _ in commands])
    rows["op"] = ("event", samples.text_array([op for _, op, _ in commands]))
    rows["args_json"] = ("event", samples.text_array([json.dumps(args) for *_, args in commands]))
    return xr.DataTree.from_dict({"/control": rows})


@given(st.integers(1, 500), st.integers(2, 60))
def test_thinning_keeps_order_both_ends_and_the_limit(count, limit):
    kept = thin(count, limit)
    assert len(kept) <= max(limit, 2)
    assert kept[0] == 0 and kept[-1] == count - 1
    assert (np.diff(kept) > 0).all()
    assert count > limit or kept.tolist() == list(range(count))


def test_the_same_command_in_several_layers_is_one_event(samples):
    events = control(samples, *((7, "bias_expert", {"layer": layer, "expert": 3}) for layer in (2, 0, 1)))
    assert [(e["step"], e["label"]) for e in control_events(events)] == [
        (7, "bias expert (expert 3) in layers 0, 1, 2")
    ]


def test_a_refused_command_is_no_event(samples):
    trace = control(samples, (-1, "pause", {}), (9, "pause", {}))
    assert [(e["step"], e["label"]) for e in control_events(trace)] == [(9, "pause")]


def test_events_come_in_the_order_of_their_steps(samples):
    trace = control(samples, (90, "stop", {}), (9, "annotate", {"text": "look here"}))
    assert [(e["step"], e["label"]) for e in control_events(trace)] == [(9, "look here"), (90, "stop")]


def test_a_trace_without_commands_has_no_events():
    assert control_events(xr.DataTree()) == []


@pytest.mark.parametrize("args", [[1, 2], "text"])
def test_arguments_that_are_no_mapping_are_shown_as_a_value(samples, args):
    (event,) = control_events(control(samples, (3, "set_rate", args)))
    assert event["label"] == f"set rate (value {args})"


def test_what_a_run_noted_of_its_offloading_is_read_and_what_it_did_not_is_empty():
    assert offload_terms(xr.DataTree()) == {"room": {}, "budgets": {}, "pages_each": None}
    trace = xr.DataTree(xr.Dataset(attrs={"offload": '{"room": {"host": 3}, "hit_rate": 0.5}'}))
    assert offload_terms(trace) == {"room": {"host": 3}, "budgets": {}, "pages_each": None}

"""Every planted fault is found, and named where it is."""

import numpy as np
import pytest
import xarray as xr

from workbench.core.records import CacheEvent, ControlEvent, ExpertKey
from workbench.trace import Recorder, Sampling, require_valid, validate
from workbench.trace.schema import GROUPS


@pytest.fixture(scope="module")
def sound(forward, report):
    event = ControlEvent(op="pause", args={}, time_ns=1, actor="", accepted_step=1, applied_step=1, result="ok")
    miss = CacheEvent(time_ns=7, step=1, token=0, key=ExpertKey(1, 3), kind="miss", bytes=64, stall_seconds=0.5)
    recorder = Recorder(sampling=Sampling(train_every=1, prob=True))
    for step in (1, 2):
        recorder.add(*forward(seed=step), phase="train", step=step, report=report(step), events=[event, miss])
    return recorder.trace()


def set_value(group, name, at, value):
    def plant(trace):
        trace[group][name].values[at] = value

    return plant


def set_attr(group, name, value):
    def plant(trace):
        trace[group].attrs[name] = value

    return plant


def change(group, function):
    def plant(trace):
        trace[group] = xr.DataTree(function(trace[group].to_dataset()))

    return plant


FAULTS = {
    "another schema": (set_attr("/", "schema", "x"), "/: attribute schema must be 'moe-workbench.trace/1', got 'x'"),
    "an attribute no file holds": (set_attr("/", "x", {}), "/: attribute 'x' must be plain, got dict"),
    "no word on sampling": (
        change("routing", lambda d: d.drop_attrs(deep=False)),
        "/routing: attribute 'sampling' is missing",
    ),
    "a variable is missing": (change("load", lambda d: d.drop_vars("cv")), "/load/cv: is missing"),
    "a variable nobody knows": (change("load", lambda d: d.assign(gini=1)), "/load/gini: no such variable"),
    "a dimension is swapped": (
        change("load", lambda d: d.assign(load=d["load"].transpose("layer", "step", "expert"))),
        "/load/load: dimensions must be ('step', 'layer', 'expert'), got ('layer', 'step', 'expert')",
    ),
    "a dtype is wrong": (
        change("routing", lambda d: d.assign(expert=d["expert"].astype("float32"))),
        "/routing/expert: dtype must be int16, got float32",
    ),
    "units are missing": (
        change("run", lambda d: d.assign(loss=("step", d["loss"].values))),
        "/run/loss: units must be 'nat/token', got None",
    ),
    "a coordinate became data": (
        change("load", lambda d: d.reset_coords("phase")),
        "/load/phase: must be a coordinate",
    ),
    "data became a coordinate": (change("load", lambda d: d.set_coords("cv")), "/load/cv: must not be a coordinate"),
    "an expert too many": (
        set_value("routing", "expert", (0, 1, 1), 9),
        "/routing/expert: must be -1 or below num_experts=4, got 9 at site 0, token 1, slot 1",
    ),
    "an empty slot that was kept": (
        lambda trace: (
            set_value("routing", "expert", (0, 0, 0), -1)(trace),
            set_value("routing", "weight", (0, 0, 0), 0)(trace),
            set_value("routing", "kept", (0, 0, 0), True)(trace),
        ),
        "/routing/kept: is True in 1 empty slots",
    ),
    "an empty slot with weight": (
        lambda trace: (
            set_value("routing", "expert", (0, 0, 0), -1)(trace),
            set_value("routing", "kept", (0, 0, 0), False)(trace),
        ),
        "/routing/weight: must be 0 where the slot is empty; 1 are not",
    ),
    "a weight that is no number": (
        set_value("routing", "weight", (0, 0, 0), np.nan),
        "/routing/weight: must be finite; 1 are not",
    ),
    "experts of a token nobody routed": (
        set_value("routing", "is_routed", (0, 0), False),
        "/routing/is_routed: is False for 1 tokens that have experts",
    ),
    "a negative position": (set_value("routing", "position", 0, -2), "/routing/position: must not be negative, got -2"),
    "a negative probability": (set_value("routing", "prob", (0, 0, 0), -1), "/routing/prob: must not be negative"),
    "a phase that does not exist": (
        set_value("routing", "phase", 0, "trian"),
        "/routing/phase: must be one of train, eval, prefill, decode; got 'trian'",
    ),
    "a step that goes back": (set_value("routing", "step", 0, 5), "/routing/step: goes from 5 to 1 at row 1"),
    "a step that comes twice": (
        change("run", lambda d: d.assign_coords(step=[1, 1])),
        "/run/step: goes from 1 to 1 at row 1",
    ),
    "load that does not sum to one": (
        set_value("load", "load", (1, 0), 0.5),
        "/load/load: must sum to 1 over experts, sums to 2.0000 at step 2, layer 0",
    ),
    "a fraction above one": (
        set_value("load", "dead_fraction", (0, 0), 1.5),
        "/load/dead_fraction: must be between 0 and 1, got ",
    ),
    "a negative entropy": (set_value("load", "entropy", (0, 0), -1), "/load/entropy: must not be negative, got -1.0"),
    "layers that do not count from zero": (
        change("load", lambda d: d.isel(layer=[1])),
        "/load/layer: must count from 0, got [1]",
    ),
    "an event of no kind": (set_value("offload", "kind", 0, "hop"), "/offload/kind: must be one of hit, miss, "),
    "negative bytes": (set_value("offload", "bytes", 0, -1), "/offload/bytes: must not be negative, got -1"),
    "arguments that are not JSON": (
        set_value("control", "args_json", 1, "{"),
        "/control/args_json: row 1 is not JSON: ",
    ),
}


@pytest.mark.parametrize("fault", list(FAULTS))
def test_a_planted_fault_is_found_where_it_is(sound, fault):
    plant, message = FAULTS[fault]
    trace = sound.copy(deep=True)
    plant(trace)
    found = [str(problem) for problem in validate(trace)]
    assert len(found) == 1, found
    assert found[0].startswith(message)


def test_a_group_nobody_knows_is_found(sound):
    trace = sound.copy(deep=True)
    trace["routings"] = xr.DataTree()
    assert [str(problem) for problem in validate(trace)] == [
        f"/routings: no such group (did you mean 'routing'?); known: {', '.join(GROUPS)}"
    ]


def test_a_sound_trace_has_no_problem(sound):
    assert validate(sound) == []
    require_valid(sound)


def test_the_error_lists_the_first_ten(sound):
    trace = sound.copy(deep=True)
    trace["load"] = xr.DataTree(trace["load"].to_dataset().drop_vars(["cv", "entropy"]))
    for name in range(10):
        trace.attrs[f"x{name}"] = {}
    with pytest.raises(ValueError, match=r"(?s)the trace is not valid:\n  /: attribute 'x0'.*\n  and 2 more$"):
        require_valid(trace)

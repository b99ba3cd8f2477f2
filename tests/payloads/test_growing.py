"""What grows row by row ends as what is sent whole."""

from itertools import pairwise

import numpy as np
import pytest

from workbench.payloads.expert_load import expert_load_payload, grow_expert_load, growing_expert_load
from workbench.payloads.growing import Growing
from workbench.payloads.loss_curves import grow_loss_curves, growing_loss_curves, loss_curves_payload
from workbench.trace.blocks import cut, from_trace, rows_of, to_trace
from workbench.trace.schema import GROUPS

CASES = {
    "loss_curves": (loss_curves_payload, growing_loss_curves, grow_loss_curves, "run"),
    "expert_load": (expert_load_payload, growing_expert_load, grow_expert_load, "load"),
}


def recorded(group, steps, samples, trace_of):
    made = samples.run_group(steps=steps) if group == "run" else samples.load_group(steps=steps)
    return trace_of(**{group: made})


def pieces(block, group, bounds):
    """Blocks that hold the rows of a group between the bounds."""
    out = []
    for start, stop in pairwise(bounds):
        variables = GROUPS[group].variables
        out.append({group: {n: a[start:stop] if "step" in variables[n].dims else a for n, a in block[group].items()}})
    return out


def grown(viewer, payload, decode):
    """What a viewer has after a payload, by the rule of the header alone."""
    header, arrays = decode(payload)
    if viewer is None or "grow" not in header:
        return header, arrays
    old_header, old = viewer
    merged = {**old}
    for name, array in arrays.items():
        is_row = header["grow"].get(name) == "append" and name in old
        merged[name] = np.concatenate([old[name], array]) if is_row else array
    return {**old_header, **header, "events": old_header.get("events", []) + header["events"]}, merged


@pytest.mark.parametrize("view", CASES)
@pytest.mark.parametrize("bounds", [[0, 40], [0, 1, 2, 40], [0, 7, 8, 30, 40]])
def test_rows_that_come_one_by_one_are_those_of_the_whole_trace(view, bounds, decode, samples, trace_of):
    whole, growing_of, grow, group = CASES[view]
    trace = recorded(group, 40, samples, trace_of)
    growing, viewer = growing_of(None), None
    for block in pieces(from_trace(trace)[0], group, bounds):
        viewer = grown(viewer, grow(growing, block), decode)
    header, arrays = decode(whole(trace))
    for name, array in arrays.items():
        np.testing.assert_allclose(np.broadcast_to(array, viewer[1][name].shape), viewer[1][name], err_msg=name)
    assert {name: viewer[0][name] for name in header if name not in ("arrays", "statements", "badge")} == {
        name: header[name] for name in header if name not in ("arrays", "statements", "badge")
    }


@pytest.mark.parametrize("view", CASES)
def test_a_run_that_goes_on_grows_from_what_it_had(view, decode, samples, trace_of):
    whole, growing_of, grow, group = CASES[view]
    trace = recorded(group, 20, samples, trace_of)
    block = from_trace(trace)[0]
    steps = block[group]["step"]
    middle = rows_of(GROUPS[group], block[group], int(steps[9]))
    growing = growing_of(to_trace(cut(block, int(steps[9])), {}))
    viewer = grown(None, growing.whole(), decode)
    viewer = grown(viewer, grow(growing, pieces(block, group, [middle, len(steps)])[0]), decode)
    _, arrays = decode(whole(trace))
    for name, array in arrays.items():
        np.testing.assert_allclose(np.broadcast_to(array, viewer[1][name].shape), viewer[1][name], err_msg=name)


def test_past_its_limit_older_rows_are_left_out_and_it_says_so(decode):
    growing = Growing("loss_curves", {}, {}, rows_of=lambda name: "steps", max_rows=100)
    for start in range(0, 300, 10):
        growing.grow({"step": np.arange(start, start + 10, dtype=np.int32)})
    header, arrays = decode(growing.whole())
    assert len(arrays["step"]) < 300
    assert arrays["step"][-150:].tolist() == list(range(150, 300))
    assert arrays["step"][:75].tolist() == list(range(0, 150, 2))
    assert any("of 300 recorded" in text for text in header["statements"])


def test_rows_that_became_wider_are_filled_up_with_nothing(decode):
    growing = Growing("expert_load", {}, {}, rows_of=lambda name: "train", max_rows=100)
    growing.grow({"train.load": np.ones((2, 1, 2), np.float32)})
    growing.grow({"train.load": np.ones((1, 1, 3), np.float32)})
    load = decode(growing.whole())[1]["train.load"]
    assert load.shape == (3, 1, 3)
    assert np.isnan(load[:2, 0, 2]).all() and not np.isnan(load[2]).any()

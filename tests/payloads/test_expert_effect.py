"""Causal effects beside their controls, as a payload."""

import numpy as np
import pytest
from scipy import stats

from workbench.payloads import expert_effect_payload
from workbench.payloads.expert_effect import control_interval

ROW = {
    "layer": 1,
    "expert": 3,
    "load": 0.125,
    "loss": 2.5,
    "base_loss": 2.0,
    "change": 0.5,
    "controls": [0.1, 0.05, -0.02, 0.2, 0.08, 0.04, 0.11, 0.0],
    "control_experts": [0, 1, 2, 4, 5, 6, 7, 8],
    "step": 120,
}


def test_the_interval_is_that_of_students_t():
    mean, low, high = control_interval(ROW["controls"])
    expected = stats.t.interval(0.95, 7, loc=np.mean(ROW["controls"]), scale=stats.sem(ROW["controls"]))
    assert (mean, low, high) == pytest.approx((np.mean(ROW["controls"]), *expected))


def test_one_control_has_no_interval_and_none_has_no_mean():
    mean, low, high = control_interval([0.25])
    assert mean == 0.25 and np.isnan([low, high]).all()
    assert np.isnan(control_interval([])).all()
    assert control_interval([0.1, float("nan"), 0.3])[0] == pytest.approx(0.2)


def test_every_measurement_is_sent_with_its_controls(decode):
    header, arrays = decode(expert_effect_payload([{**ROW, "controls": [0.1], "control_experts": [9]}, ROW]))
    assert arrays["change"].tolist() == [0.5, 0.5]
    assert arrays["controls"][1].tolist() == ROW["controls"]
    assert arrays["control_experts"][0].tolist() == [9] + [-1] * 7
    assert arrays["control_layers"][0].tolist() == [1] + [-1] * 7
    assert np.isnan(arrays["controls"][0, 1:]).all()
    assert arrays["interval"][1].tolist() == pytest.approx(control_interval(ROW["controls"]))
    assert header["unit"] == "nats per token"


def test_controls_of_other_layers_keep_theirs(decode):
    row = {**ROW, "controls": [0.1, 0.2], "control_experts": [3, 4], "control_layers": [0, 2]}
    assert decode(expert_effect_payload([row]))[1]["control_layers"].tolist() == [[0, 2]]


def test_nothing_measured_yet_is_no_row(decode):
    header, arrays = decode(expert_effect_payload([]))
    assert header["empty"] is None
    assert arrays["change"].shape == (0,) and arrays["interval"].shape == (0, 3)

"""Reports and events as columns."""

import json

import numpy as np

from workbench.core.records import CacheEvent, ControlEvent, ExpertKey
from workbench.trace.pack_records import control_columns, offload_columns, run_columns


def test_nothing_is_no_group():
    assert run_columns([]) == control_columns([]) == offload_columns([]) == {}


def test_labels_of_all_reports_share_an_axis(report):
    columns = run_columns(
        [report(1, aux_losses={"z": 3.0}, aux_weights={"z": 0.1}), report(2, aux_weights={"balance": 0.5, "z": 0.2})]
    )
    assert columns["aux"].tolist() == ["z", "balance"]
    np.testing.assert_array_equal(columns["aux_loss"], [[3.0, np.nan], [np.nan, 3.0]])
    np.testing.assert_array_equal(columns["aux_weight"], [[0.1, np.nan], [0.2, 0.5]])
    assert "eval_loss" not in columns


def test_a_loss_keeps_every_bit(report):
    loss = 0.1 + 0.2
    assert run_columns([report(1, loss=loss)])["loss"][0] == loss


def test_arguments_are_json_and_text_is_safe():
    event = ControlEvent(
        op="annotate", args={"text": "ü\0"}, time_ns=1, actor="a\0b", accepted_step=1, applied_step=1, result=""
    )
    columns = control_columns([event])
    assert json.loads(columns["args_json"][0]) == {"text": "ü\0"}
    assert columns["actor"].tolist() == ["a␀b"]


def test_an_expert_key_becomes_layer_and_expert():
    event = CacheEvent(
        time_ns=2**40, step=1, token=-1, key=ExpertKey(3, 9), kind="evict", bytes=2**40, stall_seconds=0.0
    )
    columns = offload_columns([event])
    assert (columns["layer"][0], columns["expert"][0]) == (3, 9)
    assert columns["bytes"][0] == columns["time_ns"][0] == 2**40

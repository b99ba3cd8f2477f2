"""Steering: what is added to the score of an expert."""

import pytest
import torch

from workbench.core.records import ExpertKey
from workbench.live.steering import PIN, Steer, Steering

BAN, HERE = Steer("ban", float("-inf")), ExpertKey(1, 2)


def test_the_bias_holds_what_was_asked_for_and_nothing_else():
    steering = Steering(2, 4)
    assert steering.bias(torch.device("cpu")) is None
    assert steering.steer(HERE, BAN) is None
    assert steering.steer(ExpertKey(0, 0), Steer("pin", PIN)) is None
    assert steering.bias(torch.device("cpu")).tolist() == [[PIN, 0, 0, 0], [0, 0, float("-inf"), 0]]
    assert steering.to_json() == [
        {"layer": 0, "expert": 0, "kind": "pin", "bias": PIN},
        {"layer": 1, "expert": 2, "kind": "ban", "bias": None},
    ]
    assert steering.steer(HERE, None) == BAN
    assert steering.steer(ExpertKey(0, 0), None) == Steer("pin", PIN)
    assert steering.bias(torch.device("cpu")) is None


def test_an_expert_that_is_not_there_is_an_error_that_says_which_are():
    with pytest.raises(ValueError, match="no expert 4 in layer 0; layers go from 0 to 1 and experts from 0 to 3"):
        Steering(2, 4).steer(ExpertKey(0, 4), BAN)


def test_the_last_expert_of_a_layer_cannot_be_banned():
    steering = Steering(1, 2)
    steering.steer(ExpertKey(0, 0), BAN)
    with pytest.raises(ValueError, match="take one of those bans back"):
        steering.steer(ExpertKey(0, 1), BAN)

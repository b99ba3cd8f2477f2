"""A swap on a fixed text as a payload."""

import math

import numpy as np
import pytest
import torch

from workbench.analysis import diff_routings
from workbench.core import SparseRouting
from workbench.payloads import router_swap_payload


def routing(expert, weight=None, num_experts=4):
    chosen = torch.tensor(expert)
    weights = torch.full(chosen.shape, 1 / chosen.shape[1]) if weight is None else torch.tensor(weight)
    return SparseRouting.from_topk(chosen, weights, num_experts=num_experts)


@pytest.fixture
def diff():
    before = [routing([[0, 1], [2, 3], [1, 0]]), routing([[0, 1]] * 3)]
    after = [routing([[0, 1], [2, 0], [3, 2]]), routing([[0, 1]] * 3)]
    return diff_routings(before, after).with_losses(2.0, 2.25)


def test_it_tells_each_token_before_and_after(decode, diff):
    payload = router_swap_payload(
        diff, pieces=["a", "b", "<script>"], before="top_k", after="switch", step=120, stall_seconds=0.05
    )
    header, arrays = decode(payload)
    assert arrays["expert"][0, :, 0].tolist() == [[0, 1], [2, 3], [0, 1]]
    assert arrays["expert"][1, :, 0].tolist() == [[0, 1], [0, 2], [2, 3]]
    assert arrays["token_moved"].tolist() == [[0, 0], [0.5, 0], [1, 0]]
    assert arrays["moved"].tolist() == [0.5, 0]
    assert np.allclose(arrays["flow"], diff.flow.values)
    assert arrays["numbers"].tolist() == [2.0, 2.25, 0.05]
    assert (header["before"], header["after"], header["step"]) == ("top_k", "switch", 120)
    assert header["pieces"] == ["a", "b", "<script>"]


def test_an_unknown_loss_stays_unknown(decode):
    same = diff_routings([routing([[0]])], [routing([[0]])])
    _, arrays = decode(router_swap_payload(same, pieces=["a"]))
    assert all(math.isnan(value) for value in arrays["numbers"])


def test_a_router_that_uses_every_expert_says_that_eight_are_shown(decode):
    every = routing([list(range(12))], num_experts=12)
    header, arrays = decode(router_swap_payload(diff_routings([every], [every]), pieces=["a"]))
    assert arrays["expert"].shape == (2, 1, 1, 8)
    assert "eight with the largest weights" in header["statements"][-1]


def test_another_number_of_pieces_is_refused(diff):
    with pytest.raises(ValueError, match="one piece of text per token expected, got 1 for 3 tokens"):
        router_swap_payload(diff, pieces=["a"])


def test_no_swap_is_a_sentence(decode):
    assert "No router has been swapped" in decode(router_swap_payload(None))[0]["empty"]

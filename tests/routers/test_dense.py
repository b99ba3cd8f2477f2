"""The dense control: every expert of every token."""

import torch

from workbench.core import RouteContext
from workbench.routers.dense import DenseRouter
from workbench.routers.top_k import TopKRouter

LOGITS = [[2.0, 1.0, 0.0, -1.0], [0.0, 0.0, 3.0, 0.0]]


def test_every_expert_weighs_its_probability(decide, dense_weights):
    routing = decide(DenseRouter, LOGITS)
    torch.testing.assert_close(dense_weights(routing), torch.tensor(LOGITS).softmax(-1))
    assert routing.counts.tolist() == [2, 2, 2, 2]
    assert routing.kept is None


def test_it_is_top_k_of_all_experts(decide, dense_weights):
    every = decide(TopKRouter, LOGITS, top_k=4)
    torch.testing.assert_close(dense_weights(decide(DenseRouter, LOGITS)), dense_weights(every))


def test_a_finite_bias_changes_nothing_and_a_ban_takes_the_rows(decide, dense_weights):
    plain = dense_weights(decide(DenseRouter, LOGITS))
    pushed = decide(DenseRouter, LOGITS, RouteContext(bias=torch.tensor([9.0, 0, 0, 0])))
    assert torch.equal(dense_weights(pushed), plain)
    banned = decide(DenseRouter, LOGITS, RouteContext(bias=torch.tensor([-torch.inf, 0, 0, 0])))
    assert banned.counts.tolist() == [0, 2, 2, 2]
    assert torch.equal(dense_weights(banned)[:, 1:], plain[:, 1:])
    assert dense_weights(banned)[:, 0].tolist() == [0, 0]

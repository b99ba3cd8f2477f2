"""Choosing by an averaged distribution."""

import torch

from workbench.core import RouteContext
from workbench.routers._graph import choose

PROB = torch.tensor([[0.5, 0.1, 0.3, 0.1], [0.0, 0.0, 1.0, 0.0]])
MEMORY = torch.zeros(2, 3)


def decided(top_k: int, prob: torch.Tensor = PROB, bias: torch.Tensor | None = None):
    return choose(prob, torch.zeros(2, 4), MEMORY, top_k, RouteContext(bias=bias))


def test_weights_are_the_chosen_probabilities_over_their_sum(assert_close):
    routing = decided(2)
    assert routing.expert.tolist() == [[0, 2], [2, 0]]
    assert_close(routing.weight, torch.tensor([[0.625, 0.375], [1.0, 0.0]]))
    assert routing.memory is MEMORY


def test_with_all_experts_the_weights_are_the_distribution(dense_weights, assert_close):
    assert_close(dense_weights(decided(4)), PROB)


def test_a_sum_beside_one_is_brought_back(assert_close):
    assert_close(decided(2, PROB * 1.001).prob, PROB)


def test_a_probability_of_zero_is_no_ban_and_a_ban_is_one():
    bias = torch.tensor([0.0, 0.0, -torch.inf, 0.0])
    routing = decided(1, bias=bias)
    assert routing.expert.tolist() == [[0], [0]]
    assert routing.weight.isfinite().all()
    assert decided(1, bias=torch.full((4,), -torch.inf)).counts.sum() == 0


def test_a_bias_is_a_factor_on_odds():
    # 0.3 / 0.5 is -0.51 in logarithms.
    assert decided(1, bias=torch.tensor([0.0, 0.0, 0.5, 0.0])).expert[0].tolist() == [0]
    assert decided(1, bias=torch.tensor([0.0, 0.0, 0.52, 0.0])).expert[0].tolist() == [2]

"""Top-k: the worked numbers of its forms, and every argument that it refuses."""

import math

import pytest
import torch

from workbench.core import RouteContext
from workbench.experts.mlp import MLPExperts
from workbench.routers.top_k import TopKRouter
from workbench.train.loss import balance, z_loss

HAND = [[2.0, 1.0, 0.0, -1.0]]
PROB = torch.tensor([[0.6439, 0.2369, 0.0871, 0.0321]])


def test_probabilities_are_the_softmax_over_all_experts(decide):
    routing = decide(TopKRouter, HAND)
    torch.testing.assert_close(routing.prob, PROB, rtol=0, atol=5e-5)
    assert routing.logit.tolist() == HAND


def test_mixtral_divides_by_the_sum_of_the_chosen(decide, dense_weights):
    weights = dense_weights(decide(TopKRouter, HAND))
    torch.testing.assert_close(weights, torch.tensor([[0.7311, 0.2689, 0, 0]]), rtol=0, atol=5e-5)


def test_olmoe_keeps_the_raw_probabilities(decide, dense_weights):
    weights = dense_weights(decide(TopKRouter, HAND, renormalise=False))
    torch.testing.assert_close(weights, torch.tensor([[0.6439, 0.2369, 0, 0]]), rtol=0, atol=5e-5)
    assert abs(float(weights.detach().sum()) - 0.8808) < 5e-5


def test_dividing_by_the_sum_is_the_softmax_over_the_chosen_logits(decide, dense_weights, assert_close):
    logits = 3 * torch.randn(200, 8)
    for top_k in (1, 2, 8):
        after = decide(TopKRouter, logits, top_k=top_k, score="softmax_chosen")
        assert_close(dense_weights(after), dense_weights(decide(TopKRouter, logits, top_k=top_k)))
        assert_close(dense_weights(after).sum(-1), torch.ones(200))


def test_deepseek_v3_scores_each_expert_alone(decide, dense_weights, assert_close):
    routing = decide(TopKRouter, HAND, score="sigmoid", scale=2.5)
    score = [1 / (1 + math.exp(-z)) for z in HAND[0]]
    expected = [2.5 * score[0] / (score[0] + score[1]), 2.5 * score[1] / (score[0] + score[1]), 0, 0]
    assert_close(dense_weights(routing), torch.tensor([expected]))
    assert_close(routing.prob, torch.tensor([score]) / sum(score))


def test_deepseek_v2_scales_the_raw_probabilities(decide, dense_weights, assert_close):
    arguments = {"renormalise": False, "scale": 16.0, "groups": 2, "group_value": "max"}
    routing = decide(TopKRouter, [[2.0, -9.0, 1.0, 1.5]], **arguments)
    prob = torch.tensor([[2.0, -9.0, 1.0, 1.5]]).softmax(-1)
    # group 0 holds the best expert, so its weak one is taken before the better ones of group 1.
    assert_close(dense_weights(routing), 16 * prob * torch.tensor([1, 1, 0, 0]))


@pytest.mark.parametrize(("value", "expected"), [("top2", {5, 6}), ("max", {2, 5})])
def test_a_kept_expert_with_a_negative_score_beats_a_masked_one(with_logits, chosen, value, expected):
    # the card's sixth point: logits of 0 give scores of one half, the bias makes the card's numbers.
    biased = torch.tensor([-0.30, -0.28, 0.10, -0.35, -0.10, -0.08, -0.08, -0.09])
    arguments = {"score": "sigmoid", "selection_bias": True, "groups": 4, "groups_kept": 2, "group_value": value}
    router = with_logits(TopKRouter, 8, **arguments)
    router.selection_bias.copy_(biased - 0.5)
    routing = router(torch.zeros(1, 8), RouteContext())
    assert chosen(routing) == [expected]
    assert routing.weight.tolist() == [[0.5, 0.5]]


def test_the_selection_bias_moves_the_choice_and_never_the_weight(with_logits, dense_weights):
    router = with_logits(TopKRouter, 4, selection_bias=True, renormalise=False)
    router.selection_bias.copy_(torch.tensor([0.0, 0.0, 0.0, 9.0]))
    weights = dense_weights(router(torch.tensor(HAND), RouteContext()))
    torch.testing.assert_close(weights, torch.tensor([[0.6439, 0, 0, 0.0321]]), rtol=0, atol=5e-5)


def test_the_selection_bias_is_saved_and_is_no_parameter():
    router = TopKRouter(8, 4, selection_bias=True)
    assert set(router.state_dict()) == {"gate.weight", "selection_bias"}
    assert [name for name, _ in router.named_parameters()] == ["gate.weight"]
    assert set(TopKRouter(8, 4).state_dict()) == {"gate.weight"}


@pytest.mark.parametrize("score", ["softmax", "softmax_chosen", "sigmoid"])
def test_with_every_expert_chosen_the_weights_sum_to_the_scale(decide, dense_weights, assert_close, score):
    routing = decide(TopKRouter, torch.randn(20, 4), top_k=4, score=score, scale=1.5)
    assert routing.counts.tolist() == [20] * 4
    assert_close(dense_weights(routing).sum(-1), torch.full((20,), 1.5))


@pytest.mark.parametrize("score", ["softmax", "softmax_chosen", "sigmoid"])
@pytest.mark.parametrize("groups", [1, 2])
def test_a_ban_renormalises_over_what_is_left(decide, dense_weights, assert_close, score, groups):
    context = RouteContext(bias=torch.tensor([0, -torch.inf, -torch.inf, -torch.inf]))
    arguments = {"score": score, "groups": groups, "groups_kept": groups}
    routing = decide(TopKRouter, torch.randn(20, 4), context, **arguments)
    assert routing.counts.tolist() == [20, 0, 0, 0]
    assert_close(dense_weights(routing), torch.tensor([[1.0, 0, 0, 0]]).expand(20, 4))
    everything = RouteContext(bias=torch.full((4,), -torch.inf))
    none = decide(TopKRouter, torch.randn(20, 4), everything, **arguments)
    assert (none.counts.tolist(), none.weight.abs().max().item()) == ([0] * 4, 0)


def gate_gradient(x, decide_with, **arguments) -> torch.Tensor:
    """Gradient of the gate from a loss of the output alone."""
    router = decide_with(TopKRouter, 4, **arguments)
    torch.manual_seed(1)
    experts = MLPExperts(4, 4, hidden=8)
    for parameter in experts.parameters():
        torch.nn.init.normal_(parameter)
    router(x, RouteContext(phase="train")).apply(x, experts, RouteContext()).square().sum().backward()
    return router.gate.weight.grad


def test_one_renormalised_choice_gives_the_gate_no_gradient(with_logits):
    # the card's fourth point: a weight that is always 1 teaches nothing.
    x = torch.randn(50, 4)
    assert gate_gradient(x, with_logits, top_k=1, score="softmax_chosen").abs().max() == 0
    scale = gate_gradient(x, with_logits, top_k=1, renormalise=False).abs().max()
    assert scale > 1
    assert gate_gradient(x, with_logits, top_k=1).abs().max() < 3e-7 * scale * 50


def test_balance_is_one_when_the_counts_are_even_whatever_the_probabilities(decide, assert_close):
    # the card's second point: each expert is first choice once.
    logits = torch.eye(4) * torch.tensor([[1.0], [5.0], [2.0], [0.5]])
    routing = decide(TopKRouter, logits, top_k=1)
    assert routing.demand.tolist() == [1, 1, 1, 1]
    assert_close(balance(routing, torch.full((4,), 0.25)), torch.tensor(1.0))


def test_balance_is_the_number_of_experts_when_all_go_to_one_for_sure(decide, assert_close):
    routing = decide(TopKRouter, [[99.0, 0, 0, 0]] * 5, top_k=1)
    assert_close(balance(routing, routing.demand / 5), torch.tensor(4.0))


def test_balance_can_be_below_one(decide, assert_close):
    logits = torch.tensor([[0.51, 0.49]] * 6 + [[1e-30, 1.0]] * 4).log()
    routing = decide(TopKRouter, logits, top_k=1)
    value = balance(routing, routing.demand / 10)
    assert_close(value, torch.tensor(2 * (0.6 * 0.306 + 0.4 * 0.694)))
    assert abs(float(value.detach()) - 0.922) < 5e-4


@pytest.mark.parametrize(("experts", "value"), [(4, 1.9218), (8, 4.3241)])
def test_z_is_the_squared_logarithm_of_the_number_of_experts_at_zero(decide, experts, value):
    routing = decide(TopKRouter, torch.zeros(3, experts))
    assert abs(float(z_loss(routing, torch.ones(experts) / experts).detach()) - value) < 5e-5


def test_a_common_shift_moves_z_and_nothing_else(decide, assert_close):
    logits = torch.randn(30, 8)
    here, there = decide(TopKRouter, logits), decide(TopKRouter, logits + 3)
    load = here.demand / here.demand.sum()
    assert_close(there.prob, here.prob)
    assert torch.equal(there.expert, here.expert)
    assert_close(balance(there, load), balance(here, load))
    assert bool(z_loss(there, load) > z_loss(here, load) + 9)
    moved = decide(TopKRouter, logits + 3, score="sigmoid")
    assert (moved.prob - decide(TopKRouter, logits, score="sigmoid").prob).abs().max() > 0.01


def test_the_weights_of_the_losses_are_the_arguments():
    assert TopKRouter(8, 4).loss_weights == {"balance": 0.01, "z": 0.0}
    assert TopKRouter(8, 4, balance=0.5, z=0.25).loss_weights == {"balance": 0.5, "z": 0.25}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"top_k": 9}, "top_k must be between 1 and num_experts=8, got 9; use more experts or a smaller top_k"),
        ({"top_k": 0}, "top_k must be between 1 and num_experts=8, got 0; use more experts or a smaller top_k"),
        (
            {"groups": 3},
            "groups must divide num_experts=8, got 3; legal values: [1, 2, 4, 8]",
        ),
        ({"groups": 9}, "groups must be between 1 and 8, got 9"),
        ({"groups": 4, "groups_kept": 5}, "groups_kept must be between 1 and 4, got 5"),
        ({"groups": 4, "groups_kept": 0}, "groups_kept must be between 1 and 4, got 0"),
        (
            {"groups": 4, "top_k": 3},
            "groups_kept=1 of 4 groups leave 2 experts, fewer than top_k=3; keep more groups or use a smaller top_k",
        ),
        ({"balance": -0.1}, "balance must be at least 0, got -0.1"),
        ({"z": -1}, "z must be at least 0, got -1"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(arguments, message):
    with pytest.raises(ValueError) as error:
        TopKRouter(8, 8, **arguments)
    assert str(error.value) == message

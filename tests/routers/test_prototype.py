"""Expert prototyping: the best expert of every group."""

import itertools
import math

import pytest
import torch

from workbench.core import RouteContext
from workbench.routers.prototype import PrototypeRouter
from workbench.routers.switch import SwitchRouter
from workbench.routers.top_k import TopKRouter
from workbench.train.loss import balance

TRAIN, PREFILL = RouteContext(phase="train"), RouteContext(phase="prefill")
HAND = [[5.0, 4.0, 1.0, 0.0]]


def test_each_group_gives_one_expert_where_top_k_takes_the_two_best(decide, chosen):
    assert chosen(decide(PrototypeRouter, HAND)) == [{0, 2}]
    assert chosen(decide(TopKRouter, HAND)) == [{0, 1}]


def test_weights_are_raw_inside_their_group_and_sum_to_more_than_1(decide, dense_weights):
    weights = dense_weights(decide(PrototypeRouter, HAND))
    torch.testing.assert_close(weights, torch.tensor([[0.7311, 0, 0.7311, 0]]), rtol=0, atol=5e-5)
    assert abs(float(weights.detach().sum()) - 1.4621) < 5e-5


@pytest.mark.parametrize("phase", ["train", "prefill"])
def test_one_group_is_switch_forward_and_backward(with_logits, phase):
    x, context = torch.randn(64, 8), RouteContext(phase=phase)
    ours, switch = with_logits(PrototypeRouter, 8, prototypes=1), with_logits(SwitchRouter, 8, jitter=0.0)
    here, there = ours(x, context), switch(x, context)
    assert torch.equal(here.expert, there.expert)
    assert torch.equal(here.weight, there.weight)
    assert here.counts.tolist() == there.counts.tolist()
    here.weight.square().sum().backward()
    there.weight.square().sum().backward()
    assert torch.equal(ours.gate.weight.grad, switch.gate.weight.grad)


def test_groups_of_one_are_the_sum_of_all_experts_and_teach_the_gate_nothing(with_logits):
    router = with_logits(PrototypeRouter, 4, prototypes=4)
    routing = router(torch.randn(9, 4), RouteContext())
    assert routing.counts.tolist() == [9] * 4
    assert (routing.weight == 1).all()
    routing.weight.square().sum().backward()
    assert router.gate.weight.grad.abs().max() == 0


@pytest.mark.parametrize("prototypes", [1, 2, 4, 8])
def test_every_token_has_one_expert_of_each_group(decide, prototypes):
    routing = decide(PrototypeRouter, torch.randn(100, 8), PREFILL, prototypes=prototypes)
    size = 8 // prototypes
    assert torch.equal(routing.expert // size, torch.arange(prototypes).expand(100, prototypes))
    weight = routing.weight.detach()
    assert ((weight > 1 / size - 1e-6) & (weight <= 1 + 1e-6)).all()


def test_every_combination_of_experts_of_different_groups_can_be_reached(decide, chosen):
    sets = {tuple(sorted(s)) for s in chosen(decide(PrototypeRouter, torch.randn(2000, 8)))}
    assert sets == set(itertools.product(range(4), range(4, 8)))
    assert (len(sets), math.comb(8, 2)) == (16, 28)


def test_the_layer_is_the_sum_of_separate_switch_layers(with_logits, dense_weights, assert_close):
    x = torch.randn(64, 8)
    whole = dense_weights(with_logits(PrototypeRouter, 8)(x, TRAIN))
    for group in (0, 1):
        part = SwitchRouter(8, 4, jitter=0.0)
        part.gate.weight.data = torch.eye(8)[4 * group : 4 * group + 4]
        assert_close(whole[:, 4 * group : 4 * group + 4], dense_weights(part(x, TRAIN)))


def test_the_gate_of_one_group_does_not_reach_another(with_logits):
    x, gradients, decisions = torch.randn(64, 8), [], []
    for scale in (1.0, -3.0):
        router = with_logits(PrototypeRouter, 8)
        router.gate.weight.data[4:] *= scale
        routing = router(x, TRAIN)
        decisions.append(routing)
        routing.weight.sum().backward()
        gradients.append(router.gate.weight.grad[:4])
    for first, second in zip(*((d.expert, d.weight, d.kept) for d in decisions), strict=True):
        assert torch.equal(first[:, 0], second[:, 0])
        assert not torch.equal(first[:, 1], second[:, 1])
    assert torch.equal(*gradients)


def test_a_full_expert_drops_the_later_tokens_of_its_own_group_only(decide):
    # 16 tokens, two groups of two: 10 slots each. The first group crowds, the second is even.
    logits = torch.tensor([[1.0, 0, 1, 0]] * 8 + [[1.0, 0, 0, 1]] * 8)
    routing = decide(PrototypeRouter, logits, TRAIN)
    assert routing.counts.tolist() == [10, 0, 8, 8]
    assert routing.kept.tolist() == [[True, True]] * 10 + [[False, True]] * 6
    assert decide(PrototypeRouter, logits, PREFILL).counts.tolist() == [16, 0, 8, 8]
    assert decide(PrototypeRouter, logits, TRAIN, capacity_factor=0.625).counts.tolist() == [5, 0, 5, 5]


def test_the_balance_loss_is_the_sum_over_groups(with_logits, assert_close):
    router = with_logits(PrototypeRouter, 4, capacity_factor=9.0)
    logits = torch.tensor([[3.0, 0, 0, 1], [3.0, 0, 2, 0], [3.0, 0, 0, 1], [0, 2.0, 2, 0]])
    routing = router(logits, TRAIN)
    prob = logits.view(4, 2, 2).softmax(-1).mean(0)
    share = torch.tensor([[0.75, 0.25], [0.5, 0.5]])
    value = router.losses(routing, torch.zeros(4), None, TRAIN)["balance"]
    assert_close(value, 2 * (share * prob).sum())
    # the trainer's own balance loss would be the mean over groups.
    assert_close(balance(routing, routing.demand / 8), value / 2)


def test_the_balance_loss_is_off_and_even_is_the_number_of_groups(with_logits, assert_close):
    router = with_logits(PrototypeRouter, 8)
    assert router.loss_weights == {"balance": 0.0}
    logits = torch.cat((torch.eye(4), torch.eye(4)), dim=1)
    value = router.losses(router(logits, TRAIN), torch.zeros(8), None, TRAIN)["balance"]
    assert_close(value, torch.tensor(2.0))
    assert router.losses(router(logits[:0], TRAIN), torch.zeros(8), None, TRAIN)["balance"] == 0


def test_probabilities_are_divided_by_the_number_of_groups(decide, assert_close):
    routing = decide(PrototypeRouter, torch.randn(5, 8))
    assert_close(routing.prob.view(5, 2, 4).sum(-1), torch.full((5, 2), 0.5))


@pytest.mark.parametrize(("experts", "prototypes"), [(1, 1), (2, 2), (7, 1), (8, 2), (9, 1), (16, 2)])
def test_the_usual_number_of_groups_fits_any_number_of_experts(experts, prototypes):
    assert PrototypeRouter(8, experts).prototypes == prototypes


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"prototypes": 3}, "prototypes must divide num_experts=8, got 3; legal values: [1, 2, 4, 8]"),
        ({"prototypes": 0}, "prototypes must divide num_experts=8, got 0; legal values: [1, 2, 4, 8]"),
        ({"capacity_factor": -1}, "capacity_factor must be at least 0, got -1"),
        ({"balance": -1}, "balance must be at least 0, got -1"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(arguments, message):
    with pytest.raises(ValueError) as error:
        PrototypeRouter(8, 8, **arguments)
    assert str(error.value) == message

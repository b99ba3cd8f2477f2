"""S-BASE: an even plan in training, the logits elsewhere."""

import pytest
import torch

from workbench.core import RouteContext
from workbench.routers.sinkhorn import SinkhornRouter, transport

TRAIN, EVAL = RouteContext(phase="train"), RouteContext(phase="eval")
CARD = [[3.0, 1.0], [2.5, 0.0], [2.0, 1.9], [0.1, 0.0]]


def test_the_plan_of_the_card():
    plan = 4 * transport(torch.tensor(CARD), 1e-4, 200)
    expected = [[0.697, 0.303], [0.791, 0.209], [0.256, 0.744], [0.256, 0.744]]
    torch.testing.assert_close(plan, torch.tensor(expected), rtol=0, atol=5e-4)


def test_the_plan_is_that_of_the_public_descendant():
    # computed with its function.
    logits = torch.tensor([[1.0, -0.5, 0.3], [2.0, 0.7, -1.0], [0.4, 1.5, 0.1]])
    expected = [[0.100118, 0.040574, 0.192645], [0.197476, 0.097749, 0.038096], [0.035740, 0.195010, 0.102592]]
    torch.testing.assert_close(transport(logits, 1e-4, 200), torch.tensor(expected), rtol=0, atol=1e-6)


def test_rows_and_columns_of_the_plan_have_their_sums():
    plan = transport(2 * torch.randn(96, 8) + torch.randn(8), 1e-6, 1000)
    torch.testing.assert_close(plan.sum(1), torch.full((96,), 1 / 96), rtol=1e-3, atol=0)
    torch.testing.assert_close(plan.sum(0), torch.full((8,), 1 / 8), rtol=1e-3, atol=0)


def test_a_constant_per_token_or_expert_does_not_change_the_plan():
    logits = torch.randn(40, 4)
    for constant in (3 * torch.randn(40, 1), 3 * torch.randn(4)):
        pair = [transport(z, 1e-7, 2000) for z in (logits, logits + constant)]
        torch.testing.assert_close(*pair, rtol=1e-3, atol=1e-6)


def test_logits_far_apart_do_not_overflow_and_end():
    plan = transport(torch.randn(20, 4) * 500, 1e-4, 50)
    assert plan.isfinite().all()


def test_training_is_nearly_even_and_the_rest_takes_the_best(decide, chosen):
    assert chosen(decide(SinkhornRouter, CARD, TRAIN)) == [{0}, {0}, {1}, {1}]
    assert chosen(decide(SinkhornRouter, CARD, EVAL)) == [{0}] * 4
    logits = torch.randn(512, 8) + torch.randn(8)
    trained, greedy = (decide(SinkhornRouter, logits, context).counts for context in (TRAIN, EVAL))
    assert int(trained.max()) < 1.4 * 64 < 2 * 64 < int(greedy.max())


def test_one_choice_weighs_its_sigmoid_and_more_their_probabilities(decide, dense_weights, assert_close):
    logits = torch.randn(50, 4)
    for top_k, scores in ((1, logits.sigmoid()), (2, logits.softmax(-1))):
        weights = dense_weights(decide(SinkhornRouter, logits, TRAIN, top_k=top_k))
        assert (weights > 0).sum(-1).tolist() == [top_k] * 50
        assert_close(weights[weights > 0], scores[weights > 0])


def test_a_capacity_drops_in_training_only(decide):
    logits = torch.zeros(80, 4) + torch.tensor([1.0, 0, 0, 0])
    logits[:40, 0] += 3
    routing = decide(SinkhornRouter, logits, TRAIN, capacity_factor=0.5)
    assert int(routing.counts.max()) == 10
    assert routing.demand.sum() == 80
    assert (routing.weight[~routing.kept] == 0).all()
    assert decide(SinkhornRouter, logits, EVAL, capacity_factor=0.5).counts.sum() == 80


def test_a_ban_shares_the_tokens_among_the_others(decide):
    context = TRAIN.at(bias=torch.tensor([0, -torch.inf, 0, 0]))
    counts = decide(SinkhornRouter, torch.randn(300, 4), context).counts
    assert counts[1] == 0
    assert int(counts.max()) < 130
    none = decide(SinkhornRouter, torch.randn(6, 4), TRAIN.at(bias=torch.full((4,), -torch.inf)))
    assert (none.counts.tolist(), none.weight.abs().max().item()) == ([0] * 4, 0)


def test_the_plan_carries_no_gradient_and_the_weight_does(with_logits):
    router = with_logits(SinkhornRouter, 4)
    routing = router(torch.randn(2, 4), TRAIN)
    routing.weight.sum().backward()
    assert (router.gate.weight.grad.abs().sum(-1) > 0).tolist() == (routing.counts > 0).tolist()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"top_k": 9}, "top_k must be between 1 and num_experts=8, got 9; use more experts or a smaller top_k"),
        ({"capacity_factor": -1}, "capacity_factor must be at least 0, got -1"),
        ({"tolerance": -1}, "tolerance must be at least 0, got -1"),
        ({"rounds": 0}, "rounds must be at least 1, got 0"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(arguments, message):
    with pytest.raises(ValueError) as error:
        SinkhornRouter(8, 8, **arguments)
    assert str(error.value) == message

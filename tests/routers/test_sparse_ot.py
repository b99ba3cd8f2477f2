"""Sparse transport: a plan with few entries chooses in training, the best K elsewhere."""

import pytest
import torch

from workbench.core import RouteContext
from workbench.routers.sparse_ot import SparseTransportRouter
from workbench.routers.top_k import TopKRouter

TRAIN, EVAL = RouteContext(phase="train"), RouteContext(phase="eval")


def skewed(tokens: int, experts: int) -> torch.Tensor:
    return 1.5 * torch.randn(tokens, experts) + torch.randn(experts)


def test_where_tokens_choose_none_has_more_than_its_experts(decide):
    logits = skewed(200, 8)
    for top_k in (1, 2, 3):
        routing = decide(SparseTransportRouter, logits, TRAIN, top_k=top_k)
        per_token = torch.bincount(routing.assignments().token, minlength=200)
        assert int(per_token.max()) == top_k
        assert int(per_token.min()) >= 1


def test_where_experts_choose_none_has_more_than_its_capacity(decide):
    logits = skewed(200, 8)
    for factor, capacity in ((1.0, 28), (2.0, 52)):
        routing = decide(SparseTransportRouter, logits, TRAIN, choose="experts", capacity_factor=factor)
        assert int(routing.demand.max()) <= capacity
        assert int(routing.demand.sum()) > 0.9 * 200


def test_the_plan_evens_the_load_of_training(decide):
    logits = skewed(512, 8)
    greedy = decide(SparseTransportRouter, logits, EVAL, top_k=1).counts.max()
    briefly, longer = (
        decide(SparseTransportRouter, logits, TRAIN, top_k=1, iterations=n).counts.max() for n in (20, 200)
    )
    # twenty iterations move a potential by 0.2 or so, which does not undo a strong preference.
    assert 64 <= int(longer) < 1.2 * 64 < int(briefly) < 0.9 * int(greedy)


def test_outside_training_it_takes_the_best_by_raw_probability(decide, dense_weights, assert_close):
    logits = torch.randn(60, 8)
    expected = dense_weights(decide(TopKRouter, logits, EVAL, renormalise=False))
    for phase in ("eval", "prefill", "decode"):
        for choose in ("tokens", "experts"):
            routing = decide(SparseTransportRouter, logits, RouteContext(phase=phase), choose=choose)
            assert_close(dense_weights(routing), expected)


@pytest.mark.parametrize("choose", ["tokens", "experts"])
def test_weights_are_the_probabilities_and_carry_the_gradient(with_logits, dense_weights, assert_close, choose):
    router, logits = with_logits(SparseTransportRouter, 8, choose=choose), torch.randn(50, 8)
    routing = router(logits, TRAIN)
    weights = dense_weights(routing)
    assert_close(weights[weights > 0], logits.softmax(-1)[weights > 0])
    routing.weight.sum().backward()
    mask = weights > 0
    prob = logits.softmax(-1)
    # the slope of the summed chosen probabilities, the choice held fixed.
    slope = prob * (mask.float() - (prob * mask).sum(-1, keepdim=True))
    torch.testing.assert_close(router.gate.weight.grad, slope.t() @ logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("choose", ["tokens", "experts"])
@pytest.mark.parametrize("tokens", [0, 1, 3])
def test_few_tokens_are_no_special_case(decide, choose, tokens):
    routing = decide(SparseTransportRouter, torch.randn(tokens, 8), TRAIN, choose=choose)
    assert routing.num_tokens == tokens


@pytest.mark.parametrize("choose", ["tokens", "experts"])
def test_a_ban_shares_the_tokens_among_the_others(decide, choose):
    context = TRAIN.at(bias=torch.tensor([0, -torch.inf, 0, 0]))
    routing = decide(SparseTransportRouter, torch.randn(90, 4), context, choose=choose)
    assert routing.counts[1] == 0
    assert int(routing.counts[[0, 2, 3]].min()) > 15
    none = decide(SparseTransportRouter, torch.randn(6, 4), TRAIN.at(bias=torch.full((4,), -torch.inf)), choose=choose)
    assert none.demand.tolist() == [0] * 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"top_k": 9}, "top_k must be between 1 and num_experts=8, got 9; use more experts or a smaller top_k"),
        (
            {"capacity_factor": 0.9},
            "capacity_factor must be at least 1, got 0.9; with fewer entries no plan reaches every token",
        ),
        ({"gamma": 0}, "gamma must be at least 1e-06, got 0"),
        ({"iterations": -1}, "iterations must be at least 0, got -1"),
        ({"rate": -1}, "rate must be at least 0, got -1"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(arguments, message):
    with pytest.raises(ValueError) as error:
        SparseTransportRouter(8, 8, **arguments)
    assert str(error.value) == message

"""Top-p: as many experts as a threshold on their probability needs."""

import math

import pytest
import torch

from workbench.core import RouteContext
from workbench.routers.top_p import TopPRouter
from workbench.train.loss import entropy

LN2 = -0.6931472
# float32 turns these logits into exactly 1/2, 1/4, 1/8, 1/8.
DYADIC = [[0.0, LN2, 2 * LN2, 2 * LN2]]


@pytest.mark.parametrize(("top_p", "experts"), [(0.4, 1), (0.5, 2), (0.75, 3), (0.9, 4)])
def test_only_more_than_the_threshold_is_enough(decide, top_p, experts):
    routing = decide(TopPRouter, DYADIC, top_p=top_p)
    assert routing.prob.tolist() == [[0.5, 0.25, 0.125, 0.125]]
    assert routing.demand.tolist() == [1] * experts + [0] * (4 - experts)


@pytest.mark.parametrize(("top_p", "experts"), [(0.4, 7), (0.5, 9)])
def test_a_flat_gate_takes_the_most_experts_there_can_be(decide, top_p, experts):
    assert int(decide(TopPRouter, torch.zeros(1, 16), top_p=top_p).demand.sum()) == experts
    assert experts == math.floor(top_p * 16) + 1
    assert int(decide(TopPRouter, torch.randn(300, 16), top_p=top_p).kept.sum(-1).max()) <= experts


def test_a_threshold_of_0_is_the_best_expert_with_its_raw_probability(decide, dense_weights, assert_close):
    logits = torch.randn(50, 8)
    weights = dense_weights(decide(TopPRouter, logits, top_p=0.0))
    best = logits.softmax(-1).max(-1)
    assert_close(weights, torch.zeros(50, 8).scatter(1, best.indices[:, None], best.values[:, None]))


def test_a_threshold_above_1_is_the_dense_mixture(decide, dense_weights, assert_close):
    logits = torch.randn(2000, 16)
    assert_close(dense_weights(decide(TopPRouter, logits, top_p=1.1)), logits.softmax(-1))


def test_a_higher_threshold_only_adds_experts_and_takes_the_better_first(decide):
    logits = torch.randn(200, 16)
    order = logits.argsort(-1, descending=True)
    fewer = torch.zeros(200, dtype=torch.long)
    for top_p in (0.1, 0.3, 0.5, 0.8, 0.95):
        routing = decide(TopPRouter, logits, top_p=top_p)
        mask = torch.zeros(200, 17).scatter(1, routing.expert.where(routing.kept, 16), 1)[:, :16].bool()
        count = mask.sum(-1)
        assert (count >= fewer).all()
        assert torch.equal(mask.gather(1, order), torch.arange(16) < count[:, None])
        fewer = count


def test_the_chosen_exceed_the_threshold_and_without_the_last_they_do_not(decide, dense_weights):
    weights = dense_weights(decide(TopPRouter, 2 * torch.randn(500, 16), top_p=0.6)).detach()
    total = weights.sum(-1)
    assert ((total > 0.6 - 1e-6) & (total <= 1 + 1e-6)).all()
    last = weights.where(weights > 0, torch.inf).amin(-1)
    assert (total - last <= 0.6 + 1e-6).all()


def test_permuted_experts_permute_the_choice(decide, dense_weights, assert_close):
    logits, order = torch.randn(100, 16), torch.randperm(16)
    here = dense_weights(decide(TopPRouter, logits))
    assert_close(dense_weights(decide(TopPRouter, logits[:, order])), here[:, order])


def test_equal_probabilities_go_to_the_lowest_index(decide, chosen):
    assert chosen(decide(TopPRouter, torch.zeros(3, 8), top_p=0.3)) == [{0, 1, 2}] * 3


def test_a_ban_leaves_the_threshold_to_the_others(decide, chosen, dense_weights, assert_close):
    context = RouteContext(bias=torch.tensor([-torch.inf, 0, 0, 0]))
    routing = decide(TopPRouter, DYADIC, context, top_p=0.6)
    # of what is left expert 1 has one half, which is not enough.
    assert chosen(routing) == [{1, 2}]
    assert_close(dense_weights(routing), torch.tensor([[0, 0.25, 0.125, 0]]))


def test_the_balance_loss_at_an_even_load_is_the_mean_number_of_experts(with_logits, assert_close):
    router = with_logits(TopPRouter, 4, top_p=0.6)
    logits = torch.stack([torch.tensor(DYADIC[0]).roll(shift) for shift in range(4)])
    routing = router(logits, RouteContext())
    # each token takes one half and a quarter; every expert has two tokens.
    assert routing.demand.tolist() == [2] * 4
    assert_close(router.losses(routing, torch.zeros(4), None, RouteContext())["balance"], torch.tensor(2.0))


def test_the_entropy_is_that_of_all_experts(decide):
    flat, sure = decide(TopPRouter, torch.zeros(3, 16)), decide(TopPRouter, 100 * torch.eye(16))
    assert abs(float(entropy(flat, torch.zeros(16)).detach()) - 2.7726) < 5e-5
    assert entropy(sure, torch.zeros(16)) < 1e-30


def test_the_entropy_has_a_finite_slope_for_a_gate_that_is_certain(with_logits):
    router = with_logits(TopPRouter, 4)
    x = torch.tensor([[100.0, -100, -100, -100]], requires_grad=True)
    entropy(router(x, RouteContext()), torch.zeros(4)).backward()
    assert x.grad.isfinite().all()
    assert router.gate.weight.grad.isfinite().all()


def test_the_weights_of_the_losses_are_the_paper_s():
    assert TopPRouter(8, 4).loss_weights == {"balance": 0.01, "entropy": 1e-4}


def test_no_tokens_have_no_balance_loss():
    router = TopPRouter(8, 4)
    routing = router(torch.zeros(0, 8), RouteContext())
    assert router.losses(routing, torch.zeros(4), None, RouteContext())["balance"] == 0


@pytest.mark.parametrize("name", ["top_p", "balance", "entropy"])
def test_arguments_that_do_not_fit_are_refused(name):
    with pytest.raises(ValueError) as error:
        TopPRouter(8, 8, **{name: -0.1})
    assert str(error.value) == f"{name} must be at least 0, got -0.1"

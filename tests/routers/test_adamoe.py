"""AdaMoE: null experts among the choices, weights over the others, and a loss that counts nulls together."""

import pytest
import torch
from torch.nn.functional import one_hot

from workbench.core import RouteContext
from workbench.experts.zero import ZeroExperts
from workbench.routers.adamoe import AdaMoERouter
from workbench.routers.top_k import TopKRouter

TRAIN = RouteContext(phase="train")


@pytest.fixture
def with_scores():
    """The decision of 8 experts and as many nulls over the given logits."""

    def run(logits: torch.Tensor, context: RouteContext = TRAIN, num_experts: int = 8, **arguments):
        router = AdaMoERouter(logits.shape[1], num_experts, nulls=logits.shape[1] - num_experts, **arguments)
        router.gate.weight.data = torch.eye(logits.shape[1])
        return router, router(logits, context)

    return run


def test_weights_are_normalised_over_the_chosen_that_are_not_null(with_scores, dense_weights, assert_close):
    # the card's fourth point: 1 and not .4 / .7.
    _, routing = with_scores(torch.tensor([[0.4, 0.1, 0.3, 0.2]]).log(), num_experts=2, top_k=2)
    assert routing.expert.tolist() == [[0, 2]]
    assert_close(dense_weights(routing), torch.tensor([[1.0, 0, 0, 0]]))


@pytest.mark.parametrize("seed", range(3))
def test_the_loss_is_even_where_the_nulls_are_even_on_average(with_scores, assert_close, seed):
    # the card's fifth point: f = (.5, .5, 1, 0) over two tokens, whatever the probabilities are.
    gap = torch.rand(2, 2, generator=torch.Generator().manual_seed(seed))
    logits = torch.tensor([[2.0, 0, 3, -1], [0, 2.0, 3, -1]])
    logits[:, :2] -= gap[:, :1]
    router, routing = with_scores(logits, num_experts=2, top_k=2)
    assert routing.demand.tolist() == [1, 1, 2, 0]
    value = router.losses(routing, routing.demand / 4, None, TRAIN)["balance"]
    assert_close(value, torch.tensor(1.0))
    # the paper's number is top_k times that, and the weight carries the factor.
    assert router.loss_weights["balance"] * float(value.detach()) == pytest.approx(0.02 * 2)


def test_the_loss_is_the_formula_of_the_paper(with_scores, assert_close):
    logits = torch.randn(40, 12)
    router, routing = with_scores(logits, top_k=3)
    f = one_hot(routing.expert, 12).sum((0, 1)) / 40
    f[8:] = f[8:].mean()
    expected = 0.02 * 12 * (f * logits.softmax(-1).mean(0)).sum()
    value = router.losses(routing, routing.demand / 120, None, TRAIN)["balance"]
    assert_close(router.loss_weights["balance"] * value, expected)


def test_without_nulls_it_is_the_renormalised_best_k(with_logits, dense_weights, assert_close):
    logits = 3 * torch.randn(100, 8)
    router = with_logits(AdaMoERouter, 8, nulls=0, top_k=2)
    expected = with_logits(TopKRouter, 8)(logits, TRAIN)
    assert_close(dense_weights(router(logits, TRAIN)), dense_weights(expected))
    assert router.extra_experts == ()


def test_every_token_makes_all_its_choices_and_its_weights_sum_to_one_or_to_nothing(with_scores, dense_weights):
    _, routing = with_scores(torch.randn(300, 16), top_k=3)
    assert routing.demand.sum() == 900
    alone = (routing.expert >= 8).all(-1)
    assert 10 < int(alone.sum()) < 100
    sums = dense_weights(routing).sum(-1)
    assert sums[alone].abs().max() == 0
    torch.testing.assert_close(sums[~alone], torch.ones(int((~alone).sum())))


def test_null_logits_of_a_hundred_decide_whether_anything_runs(with_scores, dense_weights):
    logits = torch.randn(50, 16)
    logits[:, 8:] += 100
    _, all_null = with_scores(logits, top_k=3)
    assert all_null.counts[:8].sum() == 0
    # two nulls for three choices: one expert of the model remains, and its probability is 0 in float32.
    _, one_left = with_scores(logits[:, :10] + torch.tensor([0.0] * 8 + [20.0] * 2), top_k=3)
    assert one_left.counts[:8].sum() == 50
    assert dense_weights(one_left).sum(-1).tolist() == [1.0] * 50
    _, no_null = with_scores(logits - 200 * (torch.arange(16) >= 8), top_k=3)
    assert no_null.counts[8:].sum() == 0


def test_the_order_of_the_nulls_changes_neither_weights_nor_loss(with_scores, dense_weights, assert_close):
    logits = torch.randn(60, 12)
    order = torch.tensor([*range(8), 11, 9, 8, 10])
    (router, one), (_, other) = with_scores(logits, top_k=3), with_scores(logits[:, order], top_k=3)
    assert_close(dense_weights(one)[:, :8], dense_weights(other)[:, :8])
    values = [router.losses(r, r.demand / 180, None, TRAIN)["balance"] for r in (one, other)]
    assert_close(*values)


def test_the_balance_loss_alone_teaches_the_columns_of_the_nulls(with_scores):
    router, routing = with_scores(torch.randn(60, 12), top_k=3)
    (task,) = torch.autograd.grad((routing.weight * torch.rand(60, 3)).sum(), router.gate.weight, retain_graph=True)
    assert task[:8].abs().max() > 0.01
    assert task[8:].abs().max() == 0
    loss = router.losses(routing, routing.demand / 180, None, TRAIN)["balance"]
    assert torch.autograd.grad(loss, router.gate.weight)[0][8:].abs().max() > 1e-4


def test_ties_go_to_the_model_s_experts(with_scores, chosen):
    _, routing = with_scores(torch.zeros(4, 16), top_k=3)
    assert chosen(routing) == [{0, 1, 2}] * 4


def test_identity_nulls_weigh_by_their_probability(with_scores, dense_weights, assert_close):
    logits = torch.tensor([[0.4, 0.1, 0.3, 0.2]]).log()
    router, routing = with_scores(logits, num_experts=2, top_k=2, identity=True)
    assert_close(dense_weights(routing), torch.tensor([[1.0, 0, 0.3, 0]]))
    assert router.extra_experts[0].name == "copy"
    routing.weight.sum().backward()
    assert router.gate.weight.grad[2:].abs().max() > 0.01


def test_all_experts_of_the_model_banned_leave_the_nulls(with_scores):
    context = TRAIN.at(bias=torch.full((8,), -torch.inf))
    _, routing = with_scores(torch.randn(20, 16), context, top_k=3)
    assert routing.counts[:8].sum() == 0
    assert routing.counts[8:].sum() == 60
    assert routing.weight.abs().max() == 0


def test_by_default_there_are_as_many_nulls_as_experts():
    (spec,) = AdaMoERouter(8, 16).extra_experts
    assert (spec.name, dict(spec.args)) == ("zero", {"num_experts": 16})
    assert ZeroExperts(8, 16).num_experts == 16


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"top_k": 9, "nulls": 0}, "top_k must be between 1 and num_experts=8, got 9"),
        ({"top_k": 0}, "top_k must be between 1 and num_experts=16, got 0"),
        ({"nulls": -1}, "nulls must be at least 0, got -1"),
        ({"balance": -1}, "balance must be at least 0, got -1"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(arguments, message):
    with pytest.raises(ValueError) as error:
        AdaMoERouter(8, 8, **arguments)
    assert str(error.value).startswith(message)

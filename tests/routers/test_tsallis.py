"""Tsallis: top-p with a floor, all experts for uncertain tokens; the numbers are the card's."""

import math

import pytest
import torch

from workbench.core import RouteContext
from workbench.routers.tsallis import TsallisRouter

EVAL = RouteContext()


@pytest.fixture
def entropies(with_logits):
    """Normalised entropy of rows of probabilities, as the loss of one token after the other."""

    def measure(rows, **arguments) -> list[float]:
        prob = torch.tensor(rows)
        router = with_logits(TsallisRouter, prob.shape[1], **arguments)
        routings = [router(row.log().clamp_min(-200).unsqueeze(0), EVAL) for row in prob]
        return [float(router.losses(r, torch.zeros(prob.shape[1]), None, EVAL)["entropy"].detach()) for r in routings]

    return measure


@pytest.mark.parametrize(
    ("prob", "expected"),
    [
        ([1 / 6] * 6, 0.9997),
        ([1.0, 0, 0, 0, 0, 0], -0.0002),
        ([0.5, 0.3, 0.1, 0.05, 0.03, 0.02], 0.709),
        ([0.4, 0.3, 0.1, 0.1, 0.05, 0.05], 0.829),
        ([0.25, 0.2, 0.2, 0.15, 0.1, 0.1], 0.968),
        ([0.7, 0.1, 0.1, 0.1], 0.666),
        ([0.4, 0.3, 0.2, 0.1], 0.922),
        ([0.5, 0.5, 0, 0], 0.517),
    ],
)
def test_the_entropy_is_a_share_of_its_maximum(entropies, prob, expected):
    digits = len(str(abs(expected)).split(".")[1])
    assert abs(entropies([prob])[0] - expected) < 0.51 * 10**-digits


@pytest.mark.parametrize(
    ("prob", "experts", "total"),
    [
        ([0.5, 0.3, 0.1, 0.05, 0.03, 0.02], 2, 0.8),
        ([0.4, 0.3, 0.1, 0.1, 0.05, 0.05], 2, 0.7),
        ([0.25, 0.2, 0.2, 0.15, 0.1, 0.1], 6, 1.0),
    ],
)
def test_the_floor_the_threshold_and_the_broadcast(decide, prob, experts, total):
    routing = decide(TsallisRouter, torch.tensor([prob]).log())
    assert routing.demand.tolist() == [1] * experts + [0] * (6 - experts)
    assert abs(float(routing.weight.detach().sum()) - total) < 1e-6


def test_the_rank_that_crosses_the_threshold_is_left_out(decide):
    row = torch.tensor([[0.6, 0.1, 0.1, 0.1, 0.05, 0.05]]).log()
    for top_p, experts in ((0.72, 2), (0.85, 3), (0.55, 1)):
        assert int(decide(TsallisRouter, row, top_p=top_p, top_k=1, threshold=1).demand.sum()) == experts


def test_an_index_of_2_is_the_gini_index(entropies):
    rows = torch.randn(20, 4).softmax(-1)
    expected = (1 - rows.square().sum(-1)) / (1 - 1 / 4)
    values = entropies(rows.tolist(), index=2.0, stabiliser=0.0)
    assert max(abs(a - b) for a, b in zip(values, expected.tolist(), strict=True)) < 1e-5
    assert abs(entropies([[0.7, 0.1, 0.1, 0.1]], index=2.0, stabiliser=0.0)[0] - 0.64) < 1e-6


def test_an_index_near_1_tends_to_shannon_s_entropy(entropies):
    rows = torch.randn(20, 8).softmax(-1)
    expected = [-float((row * row.log()).sum()) / math.log(8) for row in rows]
    for index, close in ((1.0, 1e-6), (1.00005, 1e-6), (1.001, 2e-3)):
        values = entropies(rows.tolist(), index=index, stabiliser=0.0)
        assert max(abs(a - b) for a, b in zip(values, expected, strict=True)) < close


def test_without_top_p_and_broadcast_it_is_top_k_with_raw_probabilities(decide, dense_weights, assert_close):
    logits = torch.randn(100, 8)
    weights = dense_weights(decide(TsallisRouter, logits, top_p=0, threshold=1))
    ranked = logits.softmax(-1).topk(2)
    assert_close(weights, torch.zeros(100, 8).scatter(1, ranked.indices, ranked.values))


def test_a_top_p_of_1_is_dense_whatever_the_rounding(decide):
    routing = decide(TsallisRouter, torch.randn(3000, 6), top_p=1.0, threshold=1)
    assert routing.demand.tolist() == [3000] * 6


def test_a_token_has_between_k_and_all_experts(decide):
    count = decide(TsallisRouter, torch.randn(500, 8)).kept.sum(-1)
    assert count.min() == 2
    assert count.max() == 8
    assert len(count.unique()) > 3


def test_permuted_experts_permute_the_choice(decide, dense_weights, assert_close):
    logits, order = torch.randn(100, 8), torch.randperm(8)
    here = dense_weights(decide(TsallisRouter, logits))
    assert_close(dense_weights(decide(TsallisRouter, logits[:, order])), here[:, order])


def balance_of(router, logits) -> float:
    routing = router(logits, EVAL)
    return float(router.losses(routing, torch.zeros(router.num_experts), None, EVAL)["balance"].detach())


def test_the_balance_loss_is_of_weights_and_not_of_counts(with_logits):
    router = with_logits(TsallisRouter, 6)
    assert abs(balance_of(router, torch.zeros(5, 6)) - 1) < 1e-6
    case = torch.tensor([[0.5, 0.3, 0.1, 0.05, 0.03, 0.02]]).log()
    assert abs(balance_of(router, case) - 2.04) < 1e-5


def test_a_step_along_the_entropy_loss_lowers_the_entropy(with_logits):
    router, logits = with_logits(TsallisRouter, 6), torch.randn(50, 6, requires_grad=True)
    flat = torch.zeros(1, 6, requires_grad=True)

    def measure(x):
        return router.losses(router(x, EVAL), torch.zeros(6), None, EVAL)["entropy"]

    before = measure(logits)
    slope, even = torch.autograd.grad(before, logits)[0], torch.autograd.grad(measure(flat), flat)[0]
    assert measure(logits - slope) < before
    assert even.abs().max() < 1e-6


def test_gradients_are_finite_for_a_gate_that_is_certain(with_logits):
    for index, stabiliser in ((0.5, 0.0), (1.0, 0.0), (1.1, 1e-5)):
        router = with_logits(TsallisRouter, 4, index=index, stabiliser=stabiliser)
        x = torch.tensor([[100.0, -100, -100, -100]], requires_grad=True)
        losses = router.losses(router(x, EVAL), torch.zeros(4), None, EVAL)
        sum(losses.values()).backward()
        assert x.grad.isfinite().all()


def test_the_gate_begins_even_within_one_over_the_root_of_the_width():
    weight = TsallisRouter(64, 200).gate.weight
    assert weight.abs().max() <= 1 / 8
    assert abs(float(weight.detach().std()) - 1 / 8 / 3**0.5) < 0.002


def test_the_weights_of_the_losses_are_the_paper_s():
    assert TsallisRouter(8, 4).loss_weights == {"entropy": 0.01, "balance": 0.001}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"top_p": 1.1}, "top_p must be between 0 and 1, got 1.1"),
        ({"top_k": 9}, "top_k must be between 1 and num_experts=8, got 9; use more experts or a smaller top_k"),
        ({"threshold": 2}, "threshold must be between 0 and 1, got 2"),
        ({"index": 0}, "index must be between 0.001 and 2, got 0"),
        ({"stabiliser": 1}, "stabiliser must be between 0 and 0.1, got 1"),
        ({"entropy": -1}, "entropy must be at least 0, got -1"),
        ({"balance": -1}, "balance must be at least 0, got -1"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(arguments, message):
    with pytest.raises(ValueError) as error:
        TsallisRouter(8, 8, **arguments)
    assert str(error.value) == message

"""ReMoE: ReLU instead of top-k, and one strength of the penalty for the whole model."""

import math

import pytest
import torch

from workbench.core import RouteContext, Tally
from workbench.experts.mlp import MLPExperts
from workbench.routers.remoe import ReMoERouter

TRAIN = RouteContext(phase="train")


def tally(active: int, tokens: int, *, experts: int = 8, is_here: bool = True, layer: int = 0) -> Tally:
    demand = torch.zeros(experts, dtype=torch.long)
    demand[0] = active
    return Tally(layer=layer, iteration=0, demand=demand, kept=demand, losses={}, tokens=tokens, is_here=is_here)


def strength(router: ReMoERouter) -> float:
    return router.loss_weights["l1"]


def test_the_penalty_of_the_card(decide, with_logits, assert_close):
    logits = [[0.3, 0.0], [0.2, 0.1]]
    routing = decide(ReMoERouter, logits)
    assert routing.demand.tolist() == [2, 1]
    for even, expected in ((True, 0.55), (False, 0.3)):
        router = with_logits(ReMoERouter, 2, even=even)
        assert_close(router.losses(routing, torch.zeros(2), None, TRAIN)["l1"], torch.tensor(expected))
        # three of four are active where one in two should be: sparsity .25 under .5.
        router.update([tally(3, 2, experts=2)])
        assert strength(router) == pytest.approx(1.2e-8)


def test_every_positive_score_is_a_weight_and_nothing_else_is(decide, dense_weights):
    logits = torch.tensor([[0.5, -1.0, 0.0, 2.0], [-1.0, -2.0, -3.0, -4.0], [1.0, 1.0, 1.0, 1.0]])
    routing = decide(ReMoERouter, logits)
    assert dense_weights(routing).tolist() == logits.clamp_min(0).tolist()
    assert routing.demand.tolist() == [2, 1, 1, 2]
    assert routing.assignments().token.tolist() == [0, 0, 2, 2, 2, 2]


def test_a_token_without_an_expert_gives_nothing():
    router, body = ReMoERouter(4, 4), MLPExperts(4, 4, hidden=3)
    for parameter in body.parameters():
        torch.nn.init.normal_(parameter)
    router.gate.weight.data = -torch.eye(4)
    x = torch.rand(5, 4) + 0.1
    assert router(x, TRAIN).apply(x, body, TRAIN).abs().max() == 0


def test_nothing_jumps_where_a_score_passes_zero(with_logits):
    router, body = with_logits(ReMoERouter, 4), MLPExperts(4, 4, hidden=3)
    for parameter in body.parameters():
        torch.nn.init.normal_(parameter)
    low, high = (torch.tensor([[0.7, s, -1.0, 0.2]]) for s in (-1e-6, 1e-6))
    outs = [router(x, TRAIN).apply(x, body, TRAIN) for x in (low, high)]
    assert (outs[0] - outs[1]).abs().max() < 1e-4
    assert router(low, TRAIN).demand.sum() + 1 == router(high, TRAIN).demand.sum()


def test_with_every_score_positive_it_is_the_dense_weighted_sum(with_logits, assert_close):
    router, body, x = with_logits(ReMoERouter, 4, top_k=4), MLPExperts(4, 4, hidden=3), torch.rand(6, 4)
    for parameter in body.parameters():
        torch.nn.init.normal_(parameter)
    gate, up = (x @ body.gate_up.transpose(1, 2)).chunk(2, dim=-1)
    each = (torch.nn.functional.silu(gate) * up) @ body.down.transpose(1, 2)
    expected = torch.einsum("te,etd->td", x, each)
    assert_close(router(x, TRAIN).apply(x, body, TRAIN), expected)


def test_the_penalty_and_its_gradient_are_those_of_the_formula(with_logits, assert_close):
    # f / (L T) where the score is positive, and f carries no gradient.
    router, logits = with_logits(ReMoERouter, 8, top_k=2), torch.randn(30, 8)
    routing = router(logits, TRAIN)
    loss = router.losses(routing, torch.zeros(8), None, TRAIN.at(num_layers=3))["l1"]
    (found,) = torch.autograd.grad(loss, routing.logit)
    f = 8 / (2 * 30) * (logits > 0).sum(0)
    assert_close(found, (logits > 0) * f / (3 * 30))
    assert_close(loss.detach(), (f * logits.clamp_min(0)).sum() / (3 * 30))


def test_the_weighted_gradient_is_that_of_the_released_router():
    # computed with the released router, two of four experts and a strength of 0.5: each column has one slope.
    logits = torch.tensor([[0.4, -0.2, 0.3, -0.1], [0.1, 0.5, -0.3, -0.6], [0.2, -0.7, 0.6, -0.4]])
    router = ReMoERouter(4, 4, top_k=2, start=0.5)
    router.gate.weight.data = torch.eye(4)
    routing = router(logits, TRAIN)
    loss = strength(router) * router.losses(routing, torch.zeros(4), None, TRAIN)["l1"]
    (found,) = torch.autograd.grad(loss, routing.logit)
    column = torch.tensor([1 / 3, 1 / 9, 2 / 9, 0.0])
    torch.testing.assert_close(found, column * (logits > 0))


def test_even_active_counts_make_both_penalties_equal(with_logits, assert_close):
    logits = torch.eye(4)[torch.arange(8) % 4] * torch.rand(8, 1) - 0.01 * (1 - torch.eye(4)[torch.arange(8) % 4])
    values = []
    for even in (True, False):
        router = with_logits(ReMoERouter, 4, even=even)
        values.append(router.losses(router(logits, TRAIN), torch.zeros(4), None, TRAIN)["l1"])
    assert_close(*values)


def test_the_strength_moves_by_one_factor_each_step_and_rests_on_all_layers():
    router = ReMoERouter(8, 8, top_k=2)
    # this layer alone is under the budget, the model is over it.
    router.update([tally(10, 10), tally(40, 10, layer=1, is_here=False)])
    assert strength(router) == pytest.approx(1.2e-8)
    router.update([tally(30, 10), tally(5, 10, layer=1, is_here=False)])
    assert strength(router) == pytest.approx(1e-8)
    # at equality it falls.
    router.update([tally(20, 10), tally(20, 10, layer=1, is_here=False)])
    assert strength(router) == pytest.approx(1e-8 / 1.2)
    router.update([tally(0, 0)])
    assert strength(router) == pytest.approx(1e-8 / 1.2)


def test_it_takes_76_steps_from_the_default_start_to_a_hundredth():
    router = ReMoERouter(8, 8)
    steps = 0
    while strength(router) < 1e-2:
        router.update([tally(80, 10)])
        steps += 1
    assert steps == 76 == math.ceil(math.log(1e6) / math.log(1.2))


def test_the_strength_holds_the_number_of_experts_at_the_budget():
    # scores fall as the penalty grows; the number of active experts then hovers at the budget of two.
    router, noise = ReMoERouter(8, 8, top_k=2, start=1e-3), torch.randn(500, 8)
    counts, strengths = [], []
    for _ in range(80):
        counts.append(int((noise > 3 * strength(router)).sum()))
        router.update([tally(counts[-1], 500)])
        strengths.append(strength(router))
    assert all(abs(count / 500 - 2) < 0.3 for count in counts[-30:])
    steps = torch.tensor(strengths).log().diff().abs() / math.log(1.2)
    torch.testing.assert_close(steps, torch.ones(79), rtol=0, atol=1e-4)


def test_the_strength_survives_saving_and_a_cast_to_bfloat16():
    router, copy = ReMoERouter(8, 8), ReMoERouter(8, 8)
    for _ in range(131):
        router.update([tally(80, 10)])
    copy.load_state_dict(router.state_dict())
    assert strength(copy) == strength(router) > 1
    assert strength(router.to(torch.bfloat16)) == strength(copy)


def test_about_half_of_the_experts_are_active_at_first():
    router = ReMoERouter(256, 512)
    routing = router(torch.randn(64, 256), TRAIN)
    assert abs(int(routing.demand.sum()) / (64 * 512) - 0.5) < 0.02


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"top_k": 9}, "top_k must be between 1 and num_experts=8, got 9; use more experts or a smaller top_k"),
        ({"start": 0}, "start must be between 1e-30 and 1, got 0"),
        ({"growth": 0.9}, "growth must be at least 1, got 0.9"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(arguments, message):
    with pytest.raises(ValueError) as error:
        ReMoERouter(8, 8, **arguments)
    assert str(error.value) == message

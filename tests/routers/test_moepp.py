"""MoE++: cheap experts among the choices, a residual of scores, and a load that tau weighs."""

import pytest
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from workbench.core import RouteContext
from workbench.core.routing import Routing
from workbench.experts import EXPERTS
from workbench.experts._mixed import MixedExperts
from workbench.experts.mlp import MLPExperts
from workbench.routers.moepp import MoEPlusPlusRouter
from workbench.routers.top_k import TopKRouter

TRAIN = RouteContext(phase="train")


def router_of(num_experts: int, layer: int = 0, **arguments) -> MoEPlusPlusRouter:
    """A router whose logits are its input."""
    total = num_experts + MoEPlusPlusRouter(4, num_experts, **arguments).num_cheap
    router = MoEPlusPlusRouter(total, num_experts, layer=layer, **arguments)
    router.gate.weight.data = torch.eye(total)
    return router


def run(num_experts: int, logits: Tensor, context: RouteContext | None = None, **arguments) -> Routing:
    return router_of(num_experts, **arguments)(logits, context or RouteContext())


@pytest.mark.parametrize(("num_experts", "constant"), [(8, 2), (16, 2), (32, 6), (4, 2)])
def test_the_cheap_experts_are_those_of_the_paper_s_table(num_experts, constant):
    extras = [(spec.name, spec.args["num_experts"]) for spec in MoEPlusPlusRouter(8, num_experts).extra_experts]
    assert extras == [("constant", constant), ("copy", 1), ("zero", 1)]


def test_without_cheap_experts_it_is_the_best_two_by_raw_probability(with_logits, dense_weights, assert_close):
    logits = torch.randn(60, 8)
    router = with_logits(MoEPlusPlusRouter, 8, zero=0, copy=0, constant=0)
    expected = with_logits(TopKRouter, 8, renormalise=False)(logits, RouteContext())
    assert_close(dense_weights(router(logits, RouteContext())), dense_weights(expected))


@pytest.mark.parametrize(
    ("num_experts", "tau", "mean"), [(8, 0.75, 1.2), (16, 0.75, 1.5), (16, 1.0, 1.6), (8, 0.1, 1 / 3)]
)
def test_the_loss_holds_still_at_the_predicted_number_of_experts_per_token(num_experts, tau, mean):
    # the card's second point. Where load and probability agree, eta f is the same for every expert at rest,
    # and every logit of an even token then has the same slope.
    router = router_of(num_experts, tau=tau)
    total = num_experts + router.num_cheap
    load = torch.full((total,), (2 - mean) / 2 / router.num_cheap)
    load[:num_experts] = mean / 2 / num_experts
    routing = router(torch.zeros(5, total).requires_grad_(), RouteContext())
    loss = router.losses(routing, load, None, TRAIN)["balance"]
    (slope,) = torch.autograd.grad(loss, routing.logit, retain_graph=True)
    assert slope.abs().max() < 1e-6
    uneven = torch.autograd.grad(router.losses(routing, torch.eye(total)[0], None, TRAIN)["balance"], routing.logit)
    assert uneven[0].abs().max() > 1e-4


def test_the_loss_is_the_formula_of_the_paper(assert_close):
    logits = torch.randn(40, 12)
    router = router_of(8)
    routing = router(logits, RouteContext())
    f = one_hot(routing.expert, 12).sum((0, 1)) / 40
    eta = torch.tensor([1.0] * 8 + [0.75] * 4)
    value = router.losses(routing, routing.demand / 80, None, TRAIN)["balance"]
    assert_close(router.loss_weights["balance"] * value.detach(), 0.01 * (eta * f * logits.softmax(-1).mean(0)).sum())


def test_an_even_load_without_cheap_experts_has_a_loss_of_one(assert_close):
    router = router_of(4, zero=0, copy=0, constant=0, tau=1.0)
    routing = router(torch.zeros(4, 4), RouteContext())
    assert_close(router.losses(routing, torch.full((4,), 0.25), None, TRAIN)["balance"], torch.tensor(1.0))
    # the paper's value is k / N.
    assert router.loss_weights["balance"] == pytest.approx(0.01 * 2 / 4)


def test_capacity_gives_the_cheap_experts_more_rows(assert_close):
    # the card's third point: 1000 choices give 82.5 and 110 rows, and the whole is gamma times the choices.
    logits = torch.full((500, 12), -9.0)
    logits[:, 0], logits[:, 11] = 2.0, 1.0
    assert run(8, logits, TRAIN).counts.tolist() == [82] + [0] * 10 + [110]
    for phase in ("eval", "prefill", "decode"):
        assert run(8, logits, RouteContext(phase=phase)).counts.tolist() == [500] + [0] * 10 + [500]
    assert run(8, logits, TRAIN, capacity_factor=None).counts.tolist() == [500] + [0] * 10 + [500]


def test_a_dropped_choice_gives_its_weight_to_nobody(dense_weights, assert_close):
    logits = torch.randn(200, 12) + torch.tensor([3.0] + [0.0] * 11)
    free, tight = run(8, logits, RouteContext()), run(8, logits, TRAIN)
    assert int((~tight.kept).sum()) > 100
    assert_close(tight.weight, free.weight * tight.kept)
    assert torch.equal(tight.demand, free.demand)


def test_copy_gives_the_token_times_its_weight_and_zero_gives_nothing(assert_close):
    router = router_of(8)
    extras = tuple(EXPERTS.get(spec.name)(12, spec.args["num_experts"]) for spec in router.extra_experts)
    body = MixedExperts(MLPExperts(12, 8, hidden=4), extras)
    x = torch.full((1, 12), -9.0)
    x[0, 10], x[0, 11] = 2.0, 1.0
    assert_close(router(x, RouteContext()).apply(x, body, RouteContext()), x * x.softmax(-1)[0, 10])
    x[0, 11] = 3.0
    alone = router_of(8, top_k=1)(x, RouteContext())
    assert alone.expert.tolist() == [[11]]
    assert alone.apply(x, body, RouteContext()).abs().max() == 0


def test_the_released_weights_are_those_of_its_own_code(dense_weights):
    # computed with the released gating function; the fifth expert is the zero one.
    logits = [[1.0, -0.5, 0.3, 2.0, 0.7], [0.1, 1.2, -1.0, 0.4, 1.5], [0.6, 0.2, 1.4, -0.3, 0.9]]
    expected = [[0.268941, 0, 0, 0.731059, 0], [0, 1.0, 0, 0, 0], [0, 0, 1.0, 0, 0]]
    routing = run(4, torch.tensor(logits), copy=0, constant=0, renormalise=True)
    torch.testing.assert_close(dense_weights(routing), torch.tensor(expected), rtol=0, atol=1e-6)


def test_the_released_weights_of_a_zero_choice_alone_are_zero():
    routing = run(4, torch.tensor([[0.0, 0, 0, 0, 9]]), copy=0, constant=0, top_k=1, renormalise=True)
    assert routing.weight.tolist() == [[0.0]]


def test_a_residual_of_identity_routes_every_layer_like_the_first(dense_weights, assert_close):
    x = torch.randn(30, 12)
    first = run(8, x)
    above = router_of(8, layer=1)
    above.gate.weight.data.zero_()
    above.residual.weight.data = torch.eye(12)
    second = above(torch.randn(30, 12), RouteContext(layer=1, previous=first))
    third = above(torch.randn(30, 12), RouteContext(layer=2, previous=second))
    assert_close(second.logit, first.logit)
    assert_close(dense_weights(third), dense_weights(first))


def test_a_decision_of_the_third_layer_teaches_the_first():
    routers, below = [router_of(8, layer=j) for j in range(3)], None
    for router in routers:
        below = router(torch.randn(20, 12), RouteContext(layer=router.layer, previous=below))
    below.prob[:, 0].sum().backward()
    assert min(float(router.gate.weight.grad.abs().max()) for router in routers) > 1e-3
    detached = routers[0](torch.randn(20, 12), RouteContext())
    routers[0].zero_grad()
    object.__setattr__(detached, "carry", detached.carry.detach())
    routers[1](torch.randn(20, 12), RouteContext(layer=1, previous=detached)).prob[:, 0].sum().backward()
    assert routers[0].gate.weight.grad is None


@pytest.mark.parametrize("num_experts", [8, 32])
def test_it_adds_the_parameters_that_the_card_counts(num_experts):
    # constant experts, columns of the cheap ones, and the residual above the first layer.
    for layer in (0, 1):
        router = MoEPlusPlusRouter(64, num_experts, layer=layer)
        cheap, constant = router.num_cheap, router.extra_experts[0].args["num_experts"]
        held = sum(p.numel() for p in router.parameters())
        held += sum(p.numel() for p in EXPERTS.get("constant")(64, constant).parameters())
        added = 3 * 64 * constant + 64 * cheap + (num_experts + cheap) ** 2 * layer
        assert held == 64 * num_experts + added


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"top_k": 13}, "top_k must be between 1 and num_experts=12, got 13; use more experts or a smaller top_k"),
        ({"zero": -1}, "zero must be at least 0, got -1"),
        ({"copy": -1}, "copy must be at least 0, got -1"),
        ({"constant": -1}, "constant must be at least 0, got -1"),
        ({"tau": 0}, "tau must be between 1e-06 and 1, got 0"),
        ({"tau": 1.5}, "tau must be between 1e-06 and 1, got 1.5"),
        ({"capacity_factor": -1}, "capacity_factor must be at least 0, got -1"),
        ({"balance": -1}, "balance must be at least 0, got -1"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(arguments, message):
    with pytest.raises(ValueError) as error:
        MoEPlusPlusRouter(8, 8, **arguments)
    assert str(error.value) == message

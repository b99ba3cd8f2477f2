"""Noisy top-k: noise of a learned size, and losses on importance and expected load."""

import math

import pytest
import torch

from workbench.core import RouteContext
from workbench.routers.noisy_top_k import NoisyTopKRouter

TRAIN = RouteContext(phase="train")
NO_LOAD = torch.zeros(3)

# Weights, tokens and noise of a small case that was run through a published implementation of the gate.
GATE = [[0.5, 0.1], [-0.5, 0.3], [0.2, -0.4]]
NOISE_GATE = [[0.2, -0.1], [0.1, 0.4], [-0.3, 0.2]]
TOKENS = [[1.0, 2.0], [-1.0, 0.5], [0.5, -1.0]]
NOISE = [[1.0, -0.5, 0.25], [-1.0, 0.5, 2.0], [0.0, 1.5, -0.75]]


@pytest.fixture
def small_case(monkeypatch):
    """The router and the decision of the small case, for K experts per token."""

    def build(top_k: int):
        monkeypatch.setattr(RouteContext, "noise", lambda self, shape, **_: torch.tensor(NOISE))
        router = NoisyTopKRouter(2, 3, top_k=top_k)
        router.gate.weight.data, router.noise_gate.weight.data = torch.tensor(GATE), torch.tensor(NOISE_GATE)
        x = torch.tensor(TOKENS, requires_grad=True)
        return router, x, router(x, TRAIN)

    return build


def test_the_weights_are_those_of_the_published_gate(small_case, assert_close, dense_weights):
    _, _, routing = small_case(2)
    assert routing.expert.tolist() == [[0, 2], [2, 1], [1, 0]]
    expected = [[0.8599107, 0.1400894], [0.6032038, 0.3967962], [0.5287366, 0.4712634]]
    assert_close(routing.weight, torch.tensor(expected))


@pytest.mark.parametrize(("top_k", "importance", "load"), [(1, 0.0, 0.2425213), (2, 0.0603733, 0.0118950)])
def test_the_losses_are_those_of_the_published_gate(small_case, assert_close, top_k, importance, load):
    router, _, routing = small_case(top_k)
    losses = router.losses(routing, NO_LOAD, None, TRAIN)
    assert_close(losses["importance"], torch.tensor(importance))
    assert_close(losses["load"], torch.tensor(load))


def test_the_gradients_of_the_load_loss_are_those_of_the_published_gate(small_case, assert_close):
    router, x, routing = small_case(1)
    router.losses(routing, NO_LOAD, None, TRAIN)["load"].backward()
    assert_close(x.grad, torch.tensor([[0.1304476, -0.0319033], [0.0391567, -0.1032799], [0.2043812, 0.0381125]]))
    gate = [[0.3499115, -0.0129543], [-0.0468634, -0.1402624], [-0.3030480, 0.1532167]]
    noise_gate = [[0.0215836, 0.0222038], [-0.0327903, -0.1323750], [-0.1822198, 0.0313612]]
    assert_close(router.gate.weight.grad, torch.tensor(gate))
    assert_close(router.noise_gate.weight.grad, torch.tensor(noise_gate))


def test_outside_training_the_weights_are_the_softmax_of_the_kept_logits(decide, dense_weights):
    weights = dense_weights(decide(NoisyTopKRouter, [[2.0, 1.0, 0.0, -1.0]]))
    torch.testing.assert_close(weights, torch.tensor([[0.7311, 0.2689, 0, 0]]), rtol=0, atol=5e-5)


def test_training_begins_with_nothing_but_noise():
    router, x = NoisyTopKRouter(8, 4), torch.randn(4000, 8)
    assert router.gate.weight.abs().max() == router.noise_gate.weight.abs().max() == 0
    routing = router(x, TRAIN)
    share = routing.demand / 8000
    assert (share - 0.25).abs().max() < 4 * (0.25 * 0.75 / 8000) ** 0.5
    assert abs(float(routing.loss_inputs["deviation"].detach().mean()) - (math.log(2) + 0.01)) < 1e-6
    assert abs(float(routing.loss_inputs["noisy"].detach().std()) - (math.log(2) + 0.01)) < 0.02
    assert router(x, RouteContext()).expert.tolist() == [[0, 1]] * 4000


def test_noise_is_its_own_at_every_step_and_layer():
    router, x = NoisyTopKRouter(8, 4), torch.randn(50, 8)
    base = router(x, TRAIN).expert
    assert torch.equal(base, router(x, TRAIN).expert)
    for field in ("step", "layer", "micro_batch", "data_rank", "seed"):
        assert not torch.equal(base, router(x, TRAIN.at(**{field: 1})).expert), field


def test_the_expected_load_is_the_mean_load_over_fresh_noise(with_logits):
    router = with_logits(NoisyTopKRouter, 6, noise_floor=0.5)
    x = torch.randn(300, 6)
    draws = [router(x, TRAIN.at(step=step)) for step in range(60)]
    expected = torch.stack([router._chance_of_choice(r).sum(0) for r in draws]).mean(0)
    seen = torch.stack([r.demand.float() for r in draws]).mean(0)
    # the chance keeps the others' noise, so only its mean is the mean load.
    torch.testing.assert_close(expected.detach(), seen, rtol=0.03, atol=0)
    assert seen.std() > 3


def test_a_small_step_along_the_load_loss_evens_the_load(with_logits):
    router = with_logits(NoisyTopKRouter, 4)
    x = torch.randn(500, 4) + torch.tensor([1.5, 0, 0, -1])
    before = router.losses(router(x, TRAIN), torch.zeros(4), None, TRAIN)["load"]
    before.backward()
    router.gate.weight.data -= router.gate.weight.grad
    assert router.losses(router(x, TRAIN), torch.zeros(4), None, TRAIN)["load"] < 0.95 * before


def test_with_every_expert_chosen_or_without_noise_load_counts_tokens(decide, with_logits):
    x = torch.randn(20, 4)
    for router, context in ((with_logits(NoisyTopKRouter, 4, top_k=4), TRAIN), (with_logits(NoisyTopKRouter, 4), None)):
        routing = router(x, context or RouteContext())
        counts = routing.demand.double()
        expected = counts.var(correction=0) / counts.mean() ** 2
        value = router.losses(routing, torch.zeros(4), None, TRAIN)["load"]
        assert abs(float(value) - float(expected)) < 1e-6
        assert not value.requires_grad


def test_no_tokens_have_no_losses():
    router = NoisyTopKRouter(8, 4)
    losses = router.losses(router(torch.zeros(0, 8), TRAIN), torch.zeros(4), None, TRAIN)
    assert {name: float(value.detach()) for name, value in losses.items()} == {"importance": 0, "load": 0}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"top_k": 9}, "top_k must be between 1 and num_experts=8, got 9; use more experts or a smaller top_k"),
        ({"noise_floor": 0}, "noise_floor must be at least 1e-06, got 0"),
        ({"importance": -1}, "importance must be at least 0, got -1"),
        ({"load": -0.5}, "load must be at least 0, got -0.5"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(arguments, message):
    with pytest.raises(ValueError) as error:
        NoisyTopKRouter(8, 8, **arguments)
    assert str(error.value) == message

"""DSelect-k: selectors that are codes of soft bits."""

import math

import pytest
import torch

from workbench.core import RouteContext
from workbench.routers.dselect_k import DSelectKRouter

TRAIN = RouteContext(phase="train")


def ramp(*shape: int) -> torch.Tensor:
    return (torch.arange(math.prod(shape), dtype=torch.float64) * 0.7).sin().view(*shape).float()


def fed(bits, shares, num_experts: int, **arguments) -> tuple[DSelectKRouter, torch.Tensor]:
    """A router and the one token whose bits and selector scores are the given ones."""
    wanted = torch.tensor([*bits, *shares], dtype=torch.float32)
    router = DSelectKRouter(len(wanted), num_experts, selectors=len(shares), **arguments)
    router.bits.weight.data, router.share.weight.data = torch.eye(len(wanted)).split([len(bits), len(shares)])
    router.bits.bias.data.zero_(), router.share.bias.data.zero_()
    return router, wanted.unsqueeze(0)


def test_the_worked_case_of_four_experts(dense_weights, assert_close):
    router, x = fed([0.25, -0.5, 0.0, 0.5], [0.0, math.log(3)], 4)
    routing = router(x, TRAIN)
    selectors = torch.tensor([[[0.15625, 0.0, 0.84375, 0.0], [0.0, 0.5, 0.0, 0.5]]])
    assert_close(routing.loss_inputs["selector"], selectors)
    assert_close(dense_weights(routing), torch.tensor([[0.0390625, 0.375, 0.2109375, 0.375]]))


def test_the_worked_case_of_a_code_without_an_expert(assert_close):
    router, x = fed([0.0, 0.0], [0.0], 3)
    routing = router(x, TRAIN)
    assert_close(routing.loss_inputs["selector"].sum(-1), torch.tensor([[0.75]]))
    losses = router.losses(routing, torch.zeros(3), None, TRAIN)
    assert losses["reach"].item() == pytest.approx(4 / 3, rel=1e-5)
    assert_close(routing.prob.sum(-1), torch.ones(1))


def test_a_token_whose_code_has_no_expert_goes_nowhere_and_pays_for_it():
    router, x = fed([0.5, 0.5], [0.0], 3)
    routing = router(x, TRAIN)
    assert routing.demand.sum() == 0
    assert routing.prob.tolist() == [[pytest.approx(1 / 3)] * 3]
    assert router.losses(routing, torch.zeros(3), None, TRAIN)["reach"] > 1e5
    routing.prob.sum().backward()
    assert router.bits.weight.grad.isfinite().all()


def test_the_penalty_on_reach_is_for_numbers_that_are_no_power_of_two():
    assert DSelectKRouter(8, 6).loss_weights["reach"] == 1.0
    assert DSelectKRouter(8, 8).loss_weights["reach"] == 0.0


def test_values_and_gradients_of_the_published_equations(dense_weights):
    # computed with the published TensorFlow code written out in float64; 5 experts of 8 codes.
    router = DSelectKRouter(3, 5)
    router.bits.weight.data, router.share.weight.data = 0.3 * ramp(6, 3), ramp(2, 3)
    router.bits.bias.data.zero_(), router.share.bias.data.zero_()
    x = ramp(4, 3).requires_grad_()
    routing = router(x, TRAIN)
    weights, losses = dense_weights(routing), router.losses(routing, torch.zeros(5), None, TRAIN)
    expected = [
        [0.0106162, 0.0004712, 0.0083325, 0.0003697, 0.5259394],
        [0.0525819, 0.0088984, 0.4197903, 0.0710486, 0.0426261],
        [0.0, 0.8132774, 0.0, 0.1479961, 0.0],
        [0.0097339, 0.0003741, 0.0078901, 0.0003031, 0.522257],
    ]
    torch.testing.assert_close(weights, torch.tensor(expected))
    assert losses["entropy"].item() == pytest.approx(1.0937379, abs=1e-6)
    assert losses["reach"].item() == pytest.approx(3.1906418, abs=1e-5)
    ((weights * ramp(4, 5)).sum() + 0.1 * losses["entropy"] + 0.1 * losses["reach"]).backward()
    of_tokens = [
        [-0.0350505, -0.0395467, -0.0254436],
        [-0.1321274, 0.1983646, 0.4355626],
        [-0.1635065, -0.1594274, -0.080367],
        [-0.1322432, 0.0626152, 0.2280247],
    ]
    of_bits = [[0.5422729, 0.5057345, 0.2313412], [0.1162113, -0.3624146, -0.6705912]]
    torch.testing.assert_close(x.grad, torch.tensor(of_tokens))
    torch.testing.assert_close(router.bits.weight.grad[:2], torch.tensor(of_bits))


@pytest.mark.parametrize("num_experts", [2, 4, 8, 16])
def test_weights_sum_to_one_for_a_power_of_two(num_experts, dense_weights, assert_close):
    routing = DSelectKRouter(32, num_experts)(torch.randn(50, 32), TRAIN)
    assert_close(dense_weights(routing).sum(-1), torch.ones(50))
    assert_close(routing.prob, dense_weights(routing))


@pytest.mark.parametrize("selectors", [1, 2, 3])
def test_hard_bits_leave_as_many_experts_as_selectors(selectors):
    router = DSelectKRouter(32, 8, selectors=selectors)
    router.bits.weight.data *= 1e9
    active = (router(torch.randn(200, 32), TRAIN).expert >= 0).sum(-1)
    assert 1 <= int(active.min()) <= int(active.max()) == selectors


@pytest.mark.parametrize("width", [32, 512])
def test_a_fresh_router_is_alive_and_looks_at_the_token(width):
    selector = DSelectKRouter(width, 16)(torch.randn(200, width), TRAIN).loss_inputs["selector"]
    assert (selector > 0).all()
    assert selector.std(0).min() > 1e-3


def test_the_entropy_does_not_grow_with_the_batch(assert_close):
    router, x = DSelectKRouter(16, 6), torch.randn(10, 16)
    once, often = (router.losses(router(tokens, TRAIN), torch.zeros(6), None, TRAIN) for tokens in (x, x.repeat(7, 1)))
    assert_close(often["entropy"], once["entropy"])
    assert_close(often["reach"], once["reach"])


def test_the_search_only_renames_experts_once_it_is_over(dense_weights, assert_close):
    plain, searched = DSelectKRouter(32, 8), DSelectKRouter(32, 8, search_steps=1)
    searched.load_state_dict(plain.state_dict(), strict=False)
    searched.update(())
    x = torch.randn(40, 32)
    order = searched.permutation.order[0]
    assert order.tolist() != list(range(8))
    assert_close(dense_weights(searched(x, TRAIN))[:, order], dense_weights(plain(x, TRAIN)))


def test_the_search_teaches_its_scores_while_it_lasts():
    router = DSelectKRouter(32, 8, search_steps=5)
    routing = router(torch.randn(40, 32), TRAIN)
    losses = router.losses(routing, torch.zeros(8), None, TRAIN)
    (routing.weight.square().sum() + losses["search"]).backward()
    assert router.permutation.score.grad.abs().max() > 0
    assert router.loss_weights["search"] == 1e-4


@pytest.mark.parametrize(
    ("num_experts", "arguments", "message"),
    [
        (1, {}, "num_experts must be at least 2, got 1"),
        (8, {"selectors": 0}, "selectors must be at least 1, got 0"),
        (8, {"width_of_step": 0}, "width_of_step must be at least 1e-06, got 0"),
        (8, {"entropy": -1}, "entropy must be at least 0, got -1"),
        (8, {"reach": -1}, "reach must be at least 0, got -1"),
        (8, {"search_steps": -1}, "search_steps must be at least 0, got -1"),
        (8, {"search": -1}, "search must be at least 0, got -1"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(num_experts, arguments, message):
    with pytest.raises(ValueError) as error:
        DSelectKRouter(8, num_experts, **arguments)
    assert str(error.value) == message

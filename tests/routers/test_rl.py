"""RL: a policy taught by the token's own loss."""

import math

import pytest
import torch

from workbench.core import RouteContext
from workbench.routers.rl import RLRouter

TRAIN = RouteContext(phase="train")


@pytest.fixture
def router(with_logits):
    """A policy whose logits are its input, and whose guess is 0.5 everywhere."""
    made = with_logits(RLRouter, 4, standardise=False)
    made.guess.weight.data.zero_()
    made.guess.bias.data.fill_(0.5)
    return made


def losses_of(router, routing, token_loss):
    return router.losses(routing, torch.zeros(4), token_loss, TRAIN)


def test_the_losses_by_hand(router):
    routing = router(torch.zeros(1, 4), TRAIN)
    losses = losses_of(router, routing, torch.tensor([3.0]))
    # reward -3, guess 0.5, surprise -3.5; the chosen probability is 1/4.
    assert losses["policy"].item() == pytest.approx(3.5 * math.log(1 / 4))
    assert losses["value"].item() == pytest.approx(0.5 * 3.5**2)


def test_the_policy_gradient_is_surprise_times_choice_minus_probability(router, assert_close):
    logits, token_loss = torch.randn(50, 4), torch.rand(50) * 4
    routing = router(logits, TRAIN)
    losses_of(router, routing, token_loss)["policy"].backward()
    surprise = (-token_loss - 0.5).unsqueeze(-1)
    chosen = torch.nn.functional.one_hot(routing.expert[:, 0], 4)
    by_logit = -surprise * (chosen - logits.softmax(-1)) / 50
    assert_close(router.gate.weight.grad, by_logit.t() @ logits)
    assert router.guess.weight.grad is None


def test_the_guess_is_a_regression_on_the_reward(router, assert_close):
    x, token_loss = torch.randn(50, 4), torch.rand(50) * 4
    losses_of(router, router(x, TRAIN), token_loss)["value"].backward()
    assert_close(router.guess.bias.grad, (0.5 + token_loss).mean().unsqueeze(0))
    assert router.gate.weight.grad is None


def test_an_expert_that_did_better_than_expected_becomes_likelier(with_logits):
    router = with_logits(RLRouter, 4)
    router.guess.weight.data.zero_(), router.guess.bias.data.zero_()
    x = torch.ones(400, 4)
    optimizer = torch.optim.SGD(router.gate.parameters(), lr=0.3)
    before = router(x, TRAIN).prob[0].detach()
    for step in range(20):
        routing = router(x, TRAIN.at(step=step))
        token_loss = torch.where(routing.expert[:, 0] == 2, 1.0, 3.0)
        optimizer.zero_grad()
        losses_of(router, routing, token_loss)["policy"].backward()
        optimizer.step()
    after = router(x, TRAIN).prob[0]
    assert before[2] == 0.25
    assert after[2] > 0.9


def test_training_draws_from_the_policy(with_logits):
    logits = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log().expand(4000, 4)
    share = with_logits(RLRouter, 4)(logits, TRAIN).demand / 4000
    deviation = (0.25 / 4000) ** 0.5
    assert (share - torch.tensor([0.5, 0.3, 0.15, 0.05])).abs().max() < 4 * deviation


@pytest.mark.parametrize("phase", ["eval", "prefill", "decode"])
def test_outside_training_the_likeliest_expert_is_taken(decide, phase):
    routing = decide(RLRouter, [[0.1, 0.2, 0.0, 0.0], [3.0, 0.0, 0.0, 2.9]], RouteContext(phase=phase))
    assert routing.expert.tolist() == [[1], [0]]
    assert routing.weight.tolist() == [[1.0], [1.0]]


def test_tokens_without_a_target_are_left_out(router):
    routing = router(torch.randn(6, 4), TRAIN)
    token_loss = torch.tensor([1.0, torch.nan, 2.0, torch.nan, 0.5, 3.0])
    known = token_loss.isfinite()
    losses = losses_of(router, routing, token_loss)
    surprise = -token_loss[known] - 0.5
    chosen = routing.logit.log_softmax(-1)[torch.arange(6), routing.expert[:, 0]][known]
    assert losses["policy"].item() == pytest.approx(-(surprise * chosen).mean().item(), rel=1e-5)
    assert losses["value"].item() == pytest.approx((0.5 * surprise.square()).mean().item(), rel=1e-5)


def test_a_token_whose_experts_are_banned_teaches_nothing(router):
    routing = router(torch.randn(3, 4), TRAIN.at(bias=torch.full((4,), -torch.inf)))
    losses = losses_of(router, routing, torch.ones(3))
    assert routing.weight.tolist() == [[0.0]] * 3
    assert losses["policy"].item() == losses["value"].item() == 0


def test_no_target_at_all_costs_nothing(router):
    losses = losses_of(router, router(torch.randn(3, 4), TRAIN), torch.full((3,), torch.nan))
    assert losses["policy"].item() == losses["value"].item() == 0
    losses["policy"].backward()
    assert torch.equal(router.gate.weight.grad, torch.zeros(4, 4))
    assert losses_of(router, router(torch.randn(3, 4), TRAIN), None).keys() == {"policy", "value"}


def test_standardised_rewards_do_not_depend_on_the_scale_of_the_loss(with_logits, assert_close):
    router = with_logits(RLRouter, 4)
    routing, token_loss = router(torch.randn(40, 4), TRAIN), torch.rand(40)
    here, there = (losses_of(router, routing, loss) for loss in (token_loss, 7 * token_loss + 3))
    torch.testing.assert_close(here["policy"], there["policy"], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(here["value"], there["value"], rtol=1e-4, atol=1e-4)


def test_nothing_goes_back_into_the_tokens(router):
    x = torch.randn(20, 4, requires_grad=True)
    routing = router(x, TRAIN)
    assert sum(losses_of(router, routing, torch.rand(20)).values()).requires_grad
    found = torch.autograd.grad(
        sum(losses_of(router, routing, torch.rand(20)).values()), x, allow_unused=True, materialize_grads=True
    )
    assert torch.equal(found[0], torch.zeros(20, 4))


@pytest.mark.parametrize("name", ["policy", "value", "balance"])
def test_negative_weights_are_refused(name):
    with pytest.raises(ValueError) as error:
        RLRouter(8, 8, **{name: -1})
    assert str(error.value) == f"{name} must be at least 0, got -1"

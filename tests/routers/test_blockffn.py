"""BlockFFN: positive scores normalised, neighbours that share experts, and a weight that follows its loss."""

import pytest
import torch

from workbench.core import RouteContext, Tally
from workbench.routers.blockffn import BlockFFNRouter
from workbench.routers.remoe import ReMoERouter

TRAIN = RouteContext(phase="train")
LOGITS = [[0.03, -0.01, 0.002, 0.0], [0.01, 0.02, -0.004, -0.03], [-0.02, -0.01, -0.001, -0.002], [0.5, 0.25, -1, 0.1]]


def tally(chunk: float) -> Tally:
    count = torch.zeros(8, dtype=torch.long)
    return Tally(layer=0, iteration=0, demand=count, kept=count, losses={"chunk": chunk}, tokens=5)


def chunk_weights(losses: list[float], **arguments) -> list[float]:
    """The weight of the chunk loss after each step of a model with these losses."""
    router, found = BlockFFNRouter(8, 8, chunk=0.05, **arguments), []
    for loss in losses:
        router.update([tally(loss)])
        found.append(router.loss_weights["chunk"])
    return found


def test_weights_and_losses_are_those_of_the_released_code(with_logits, dense_weights):
    # computed with the released functions: norm, locality and chunk losses of two tokens each.
    router = with_logits(BlockFFNRouter, 4, chunk_tokens=2)
    router.scale.data = torch.tensor([1.0, 0.5, 2.0, 1.5])
    routing = router(torch.tensor(LOGITS), TRAIN)
    expected = [[1.952834, 0, 0.260378, 0], [0.860663, 0.860663, 0, 0], [0.0] * 4, [1.760793, 0.440198, 0, 0.528238]]
    torch.testing.assert_close(dense_weights(routing), torch.tensor(expected), rtol=0, atol=2e-6)
    losses = router.losses(routing, torch.zeros(4), None, TRAIN)
    assert float(losses["chunk"].detach()) == pytest.approx(0.335920, abs=1e-6)
    assert float(losses["locality"].detach()) == pytest.approx(1.102369, abs=1e-6)
    (slope,) = torch.autograd.grad(losses["locality"], routing.logit, retain_graph=True)
    torch.testing.assert_close(slope[0], torch.tensor([1.845963, -5.098797, 1.237680, 3.771451]), rtol=1e-5, atol=1e-5)
    (slope,) = torch.autograd.grad(losses["chunk"], routing.logit)
    torch.testing.assert_close(slope[1], torch.tensor([-2.604139, 1.302071, 0, 0]), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("active", "weight"), [(1, 6.928), (4, 3.464), (10, 2.191)])
def test_equal_scores_weigh_by_the_root_of_their_number(decide, active, weight):
    logits = torch.where(torch.arange(48) < active, 2.0, -2.0).unsqueeze(0)
    routing = decide(BlockFFNRouter, logits)
    assert routing.demand.sum() == active
    torch.testing.assert_close(routing.weight, torch.full((1, active), weight), rtol=0, atol=5e-4)


def test_larger_scores_change_the_locality_and_not_the_weights(with_logits, dense_weights):
    router, logits = with_logits(BlockFFNRouter, 8), torch.randn(40, 8)
    one, three = router(logits, TRAIN), router(3 * logits, TRAIN)
    torch.testing.assert_close(dense_weights(three), dense_weights(one), rtol=1e-3, atol=1e-3)
    values = [float(router.losses(r, torch.zeros(8), None, TRAIN)["locality"].detach()) for r in (one, three)]
    assert values[1] == pytest.approx(3 * values[0], rel=0.05)


def test_a_token_without_a_positive_score_has_no_expert_and_finite_gradients(with_logits):
    router = with_logits(BlockFFNRouter, 4)
    routing = router(-torch.rand(6, 4) - 0.1, TRAIN)
    assert routing.demand.sum() == 0
    losses = router.losses(routing, torch.zeros(4), None, TRAIN)
    sum(losses.values()).backward()
    assert router.gate.weight.grad.isfinite().all()
    assert float(losses["chunk"].detach()) == pytest.approx(0, abs=2e-4)


def test_it_chooses_as_relu_routing_does(with_logits):
    logits = torch.randn(50, 8)
    ours, relu = (with_logits(cls, 8)(logits, TRAIN) for cls in (BlockFFNRouter, ReMoERouter))
    assert torch.equal(ours.expert, relu.expert)
    norm = (logits.clamp_min(0).square().mean(-1, keepdim=True) + 1e-5).sqrt()
    torch.testing.assert_close(ours.weight * norm, relu.weight)


def test_a_negative_scale_keeps_its_expert(with_logits):
    router = with_logits(BlockFFNRouter, 4)
    router.scale.data[0] = -1
    assert router(torch.tensor([[1.0, -1, -1, -1]]), TRAIN).demand.tolist() == [1, 0, 0, 0]


def test_the_losses_of_the_layers_sum_to_their_mean(with_logits, assert_close):
    router, logits = with_logits(BlockFFNRouter, 8), torch.randn(40, 8)
    routing = router(logits, TRAIN)
    for name in ("locality", "chunk"):
        one, three = (router.losses(routing, torch.zeros(8), None, TRAIN.at(num_layers=n))[name] for n in (1, 3))
        assert_close(3 * three, one)


def test_a_steady_loss_keeps_the_weight():
    assert chunk_weights([0.4] * 2000)[-1] == pytest.approx(0.05)


def test_before_the_steady_steps_are_over_nothing_moves():
    falling = [1 / (1 + step) for step in range(1100)]
    weights = chunk_weights(falling)
    assert weights[:1000] == pytest.approx([0.05] * 1000)
    assert weights[-1] < 0.0499


def test_a_falling_loss_lowers_the_weight_by_its_ratio_over_a_period():
    weights = chunk_weights([1.0] * 10 + [0.5] * 10 + [0.5] * 20, steady=20, period=10)
    # after step 20 the loss has halved: the weight goes to half of it over the next ten steps.
    assert weights[19] == pytest.approx(0.05)
    assert weights[24] == pytest.approx(0.0375)
    assert weights[29:40] == pytest.approx([0.025] * 11)


def test_a_rising_loss_raises_the_weight_by_at_least_a_fortieth_and_to_four_times_at_most():
    slowly = chunk_weights([0.4 * 1.001 ** (step // 10) for step in range(50)], steady=20, period=10)
    assert slowly[29::10] == pytest.approx([0.05 * 1.025, 0.05 * 1.025**2, 0.05 * 1.025**3], rel=1e-5)
    fast = chunk_weights([1.5 ** (step // 10) for step in range(90)], steady=20, period=10)
    assert max(fast) == fast[-1] == pytest.approx(0.2)


def test_the_weight_goes_on_where_it_was_after_loading():
    router, copy = BlockFFNRouter(8, 8, steady=20, period=10), BlockFFNRouter(8, 8, steady=20, period=10)
    for step in range(25):
        router.update([tally(0.9**step)])
    copy.load_state_dict(router.state_dict())
    for step in range(25, 60):
        router.update([tally(0.9**step)])
        copy.update([tally(0.9**step)])
    assert copy.loss_weights == router.loss_weights
    assert router.loss_weights["chunk"] < 0.005


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"locality": -1}, "locality must be at least 0, got -1"),
        ({"chunk": -1}, "chunk must be at least 0, got -1"),
        ({"chunk_tokens": 0}, "chunk_tokens must be at least 1, got 0"),
        ({"sharpness": -1}, "sharpness must be at least 0, got -1"),
        ({"steady": -1}, "steady must be at least 0, got -1"),
        ({"period": 0}, "period must be at least 1, got 0"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(arguments, message):
    with pytest.raises(ValueError) as error:
        BlockFFNRouter(8, 8, **arguments)
    assert str(error.value) == message

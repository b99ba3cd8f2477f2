"""Switch: one expert, its raw probability, a capacity, and a jitter of the router's own copy."""

import pytest
import torch

from workbench.core import RouteContext, SparseRouting, Tally
from workbench.experts.mlp import MLPExperts
from workbench.routers.switch import SwitchRouter

TRAIN = RouteContext(phase="train")
HAND = [[2.0, 1.0, 0.0, -1.0], [0.0, 0.0, 0.0, 3.0]]


def tally_of(routing: SparseRouting) -> list[Tally]:
    """What a step that is this decision alone tells its router."""
    counts = {"demand": routing.demand, "kept": routing.counts, "tokens": routing.num_tokens}
    return [Tally(layer=0, iteration=0, losses={}, **counts)]


def test_the_best_expert_weighs_its_raw_probability(decide, dense_weights):
    weights = dense_weights(decide(SwitchRouter, HAND))
    expected = torch.zeros(2, 4)
    expected[0, 0], expected[1, 3] = 0.6439, 0.8700
    torch.testing.assert_close(weights, expected, rtol=0, atol=5e-5)


def test_a_raw_weight_teaches_the_gate(with_logits):
    router, x = with_logits(SwitchRouter, 4), torch.randn(50, 4)
    router(x, RouteContext()).weight.sum().backward()
    assert router.gate.weight.grad.abs().max() > 0.1


def test_what_comes_after_the_capacity_is_dropped_in_order_of_position(decide):
    # 64 tokens over 8 experts with factor 1.25: ten slots each.
    logits = torch.zeros(64, 8)
    logits[:40, 3] = 5.0
    logits[40:, 5] = 5.0
    routing = decide(SwitchRouter, logits, TRAIN, jitter=0.0)
    assert routing.counts.tolist() == [0, 0, 0, 10, 0, 10, 0, 0]
    assert routing.demand.tolist() == [0, 0, 0, 40, 0, 24, 0, 0]
    kept = routing.kept.flatten().nonzero().flatten().tolist()
    assert kept == [*range(10), *range(40, 50)]
    assert routing.weight[10:40].abs().max() == 0


@pytest.mark.parametrize(("phase", "rows"), [("train", 10), ("eval", 16), ("prefill", 64), ("decode", 64)])
def test_the_capacity_depends_on_the_phase(decide, phase, rows):
    logits = torch.zeros(64, 8)
    logits[:, 2] = 5.0
    assert int(decide(SwitchRouter, logits, RouteContext(phase=phase)).counts[2]) == rows


def test_a_dropped_token_gets_exactly_nothing_from_the_experts(with_logits):
    router, experts = with_logits(SwitchRouter, 8, capacity_factor=0.0), MLPExperts(8, 8, hidden=4)
    for parameter in experts.parameters():
        torch.nn.init.normal_(parameter)
    x = torch.zeros(6, 8)
    x[:, 1] = 3.0
    out = router(x, TRAIN).apply(x, experts, TRAIN)
    assert out.abs().amax(-1).gt(0).tolist() == [True] * 4 + [False] * 2


def test_the_jitter_multiplies_the_input_by_up_to_its_width(with_logits):
    # with the identity as gate the logits are the jittered input.
    x = torch.full((500, 8), 2.0)
    factor = with_logits(SwitchRouter, 8, jitter=0.01)(x, TRAIN).logit.detach() / 2
    assert 0.99 - 1e-6 <= float(factor.min()) < 0.9901
    assert 1.0099 < float(factor.max()) <= 1.01 + 1e-6
    # uniform: four standard errors of 4,000 draws.
    assert abs(float(factor.mean()) - 1) < 4 * 0.01 / (3 * factor.numel()) ** 0.5
    assert abs(float(factor.var()) / (0.01**2 / 3) - 1) < 4 * (0.8 / factor.numel()) ** 0.5


@pytest.mark.parametrize("phase", ["eval", "prefill", "decode"])
def test_only_training_jitters(with_logits, phase):
    x = torch.randn(10, 8)
    assert torch.equal(with_logits(SwitchRouter, 8)(x, RouteContext(phase=phase)).logit, x)


def test_the_experts_see_the_tokens_without_jitter(with_logits):
    router, x = with_logits(SwitchRouter, 8, jitter=0.5), torch.randn(10, 8)
    before, seen = x.clone(), []

    class Spy(MLPExperts):
        def forward(self, x, plan, context):
            seen.append(x)
            return x

    routing = router(x, TRAIN)
    routing.apply(x, Spy(8, 8, hidden=2), TRAIN)
    assert torch.equal(x, before)
    assert seen[0] is x
    assert not torch.equal(routing.logit, x)


def test_the_jitter_is_its_own_at_every_step_and_layer(with_logits):
    router, x = with_logits(SwitchRouter, 8), torch.randn(10, 8)
    base = router(x, TRAIN).logit
    assert torch.equal(base, router(x, TRAIN).logit)
    for field in ("step", "layer", "micro_batch", "data_rank", "seed"):
        assert not torch.equal(base, router(x, TRAIN.at(**{field: 1})).logit), field


def test_without_jitter_training_is_deterministic(with_logits):
    router, x = with_logits(SwitchRouter, 8, jitter=0.0), torch.randn(10, 8)
    assert torch.equal(router(x, TRAIN).logit, router(x, TRAIN.at(step=3)).logit)


@pytest.mark.parametrize("phase", ["train", "eval"])
def test_the_capacity_can_follow_the_load_of_each_expert(with_logits, phase):
    router = with_logits(SwitchRouter, 8, jitter=0.0, capacity_factor=1.0, dynamic_capacity="local")
    x, context = 5 * torch.eye(8)[torch.tensor([2] * 40 + [3] * 24)], RouteContext(phase=phase)
    before = router(x, context)
    assert before.counts.tolist() == [0, 0, 8, 8, 0, 0, 0, 0]
    for _ in range(230):
        router.update(tally_of(before))
    after = router(x, context)
    # 40 rows need a factor of 5, which ends at 4 or 32 rows; 24 rows a factor of 3.
    assert after.counts.tolist()[2] > 16
    assert after.counts.tolist()[3] > 16
    assert after.counts.tolist()[2] <= 32
    assert router(x, RouteContext(phase="prefill")).counts.tolist() == before.demand.tolist()


def test_a_capacity_that_shrinks_without_drops_changes_no_output(with_logits):
    router = with_logits(SwitchRouter, 8, jitter=0.0, capacity_factor=4.0, dynamic_capacity="global")
    x = torch.randn(8, 8).repeat(16, 1) + 4 * torch.eye(8).repeat(16, 1)
    before = router(x, TRAIN)
    rows = router.dynamic.rows(len(x))
    for _ in range(400):
        router.update(tally_of(before))
    after = router(x, TRAIN)
    assert int(before.counts.sum()) == len(x)
    assert (router.dynamic.rows(len(x)) < rows).all()
    assert torch.equal(after.weight, before.weight)
    assert torch.equal(after.kept, before.kept)


def test_a_fixed_capacity_holds_no_state():
    router = SwitchRouter(8, 4)
    assert list(router.state_dict()) == ["gate.weight"]
    router.update([])


def test_the_weights_of_the_losses_are_the_arguments():
    assert SwitchRouter(8, 4).loss_weights == {"balance": 0.01, "z": 0.0}
    assert SwitchRouter(8, 4, balance=0.1, z=1e-3).loss_weights == {"balance": 0.1, "z": 1e-3}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"capacity_factor": -1}, "capacity_factor must be at least 0, got -1"),
        ({"eval_capacity_factor": -0.5}, "eval_capacity_factor must be at least 0, got -0.5"),
        ({"jitter": 1.5}, "jitter must be between 0 and 1, got 1.5"),
        ({"jitter": -0.1}, "jitter must be between 0 and 1, got -0.1"),
        ({"balance": -0.1}, "balance must be at least 0, got -0.1"),
        ({"z": -1}, "z must be at least 0, got -1"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(arguments, message):
    with pytest.raises(ValueError) as error:
        SwitchRouter(8, 8, **arguments)
    assert str(error.value) == message

"""GShard: two experts, the second by chance, first choices first."""

import math

import pytest
import torch

from workbench.core import RouteContext, Tally
from workbench.routers.gshard import GShardRouter

TRAIN = RouteContext(phase="train")


def test_the_two_weights_are_divided_by_their_sum(decide, dense_weights, assert_close):
    weights = dense_weights(decide(GShardRouter, [[2.0, 1.0, 0.0, -1.0]]))
    total = math.e**2 + math.e
    assert_close(weights, torch.tensor([[math.e**2 / total, math.e / total, 0, 0]]))


@pytest.mark.parametrize("phase", ["eval", "prefill", "decode"])
def test_outside_training_the_second_is_always_taken(decide, phase):
    logits = torch.tensor([[9.0, 0.0, -9.0, -9.0]]).expand(4, 4)
    routing = decide(GShardRouter, logits, RouteContext(phase=phase))
    assert routing.demand.tolist() == [4, 4, 0, 0]


def second_taken(decide, weight: float, threshold: float, tokens: int = 4000) -> float:
    """Share of tokens that take their second choice, when it has this normalised weight."""
    logits = torch.tensor([[1 - weight, weight, 1e-9, 1e-9]]).log().expand(tokens, 4)
    routing = decide(GShardRouter, logits, TRAIN, threshold=threshold, capacity_factor=9.0)
    assert int(routing.demand[0]) == tokens
    return int(routing.demand[1]) / tokens


@pytest.mark.parametrize(("weight", "threshold"), [(0.1, 0.2), (0.05, 0.2), (0.1, 0.5), (0.3, 0.5)])
def test_the_second_is_taken_as_often_as_its_weight_over_the_threshold(decide, weight, threshold):
    probability = weight / threshold
    deviation = (probability * (1 - probability) / 4000) ** 0.5
    assert abs(second_taken(decide, weight, threshold) - probability) < 4 * deviation


@pytest.mark.parametrize(("weight", "threshold"), [(0.21, 0.2), (0.45, 0.2), (0.5, 0.5)])
def test_a_second_above_the_threshold_is_always_taken(decide, weight, threshold):
    assert second_taken(decide, weight, threshold) == 1


def test_a_second_that_is_not_wanted_is_no_demand_and_gives_its_weight_to_nobody(decide, dense_weights, assert_close):
    logits = torch.tensor([[0.9, 0.1, 1e-9, 1e-9]]).log().expand(200, 4)
    routing = decide(GShardRouter, logits, TRAIN, capacity_factor=9.0)
    alone = routing.expert[:, 1] == -1
    assert 50 < int(alone.sum()) < 150
    assert_close(dense_weights(routing)[alone], torch.tensor([0.9, 0, 0, 0]).expand(int(alone.sum()), 4))


def test_first_choices_are_placed_before_second_choices(decide, dense_weights):
    # 8 tokens, 2 experts, factor 1: four slots each. Four tokens prefer each expert, so no second fits.
    logits = torch.tensor([[0.4, 0.0]] * 4 + [[0.0, 0.4]] * 4)
    routing = decide(GShardRouter, logits, TRAIN, capacity_factor=1.0)
    assert routing.demand.tolist() == [8, 8]
    assert routing.counts.tolist() == [4, 4]
    assert routing.kept.tolist() == [[True, False]] * 8
    # the dropped weight is not given to the first expert.
    torch.testing.assert_close(dense_weights(routing)[0], torch.tensor([1 / (1 + math.exp(-0.4)), 0]))


def test_a_later_first_choice_evicts_an_earlier_second_choice(decide):
    logits = torch.tensor([[0.4, 0.0]] * 8)
    before = decide(GShardRouter, logits, TRAIN, capacity_factor=1.0)
    logits[7] = torch.tensor([0.0, 0.4])
    after = decide(GShardRouter, logits, TRAIN, capacity_factor=1.0)
    assert before.kept[:, 1].tolist() == [True] * 4 + [False] * 4
    assert after.kept[:7, 1].tolist() == [True] * 3 + [False] * 4
    assert GShardRouter(4, 2).causal
    assert not GShardRouter(4, 2).causal_in_training


def test_chance_is_its_own_at_every_step_and_layer(with_logits):
    router, x = with_logits(GShardRouter, 4), torch.tensor([[0.9, 0.1, 1e-9, 1e-9]]).log().expand(200, 4)
    base = router(x, TRAIN).expert
    assert torch.equal(base, router(x, TRAIN).expert)
    for field in ("step", "layer", "micro_batch", "data_rank", "seed"):
        assert not torch.equal(base, router(x, TRAIN.at(**{field: 1})).expert), field


def test_the_balance_loss_counts_first_choices_only(with_logits, assert_close):
    router = with_logits(GShardRouter, 4)
    logits = torch.tensor([[3.0, 2.0, 0, 0], [3.0, 2.0, 0, 0], [3.0, 2.0, 0, 0], [0, 3.0, 2.0, 0]])
    routing = router(logits, TRAIN)
    # expert 1 is second choice three times and counts once.
    expected = 4 * (torch.tensor([0.75, 0.25, 0, 0]) * logits.softmax(-1).mean(0)).sum()
    assert_close(router.losses(routing, torch.zeros(4), None, TRAIN)["balance"], expected)


def test_a_token_without_any_expert_is_nobody_s_first_choice(with_logits, assert_close):
    router = with_logits(GShardRouter, 4)
    context = TRAIN.at(bias=torch.full((4,), -torch.inf))
    routing = router(torch.randn(5, 4), context)
    assert routing.demand.sum() == 0
    assert router.losses(routing, torch.zeros(4), None, TRAIN)["balance"] == 0


def test_no_tokens_have_no_balance_loss(with_logits):
    router = with_logits(GShardRouter, 4)
    assert router.losses(router(torch.zeros(0, 4), TRAIN), torch.zeros(4), None, TRAIN)["balance"] == 0


@pytest.mark.parametrize("kind", ["global", "local"])
def test_the_capacity_can_follow_the_load(with_logits, kind):
    router, x = with_logits(GShardRouter, 4, dynamic_capacity=kind), torch.randn(100, 4) + torch.tensor([3.0, 2, 0, 0])
    before = router(x, TRAIN)
    counts = {"demand": before.demand, "kept": before.counts, "tokens": before.num_tokens}
    # a factor of 1 holds an even load of two choices: 50 rows each.
    assert before.counts.tolist()[0] == 50 < before.demand.tolist()[0]
    for _ in range(1500):
        router.update([Tally(layer=0, iteration=0, losses={}, **counts)])
    after = router(x, TRAIN)
    assert after.counts.tolist() == before.demand.tolist()
    assert len(set(router.dynamic.factor.tolist())) == (1 if kind == "global" else 4)
    assert len(set(GShardRouter(4, 4).state_dict())) == 1


@pytest.mark.parametrize(
    ("num_experts", "arguments", "message"),
    [
        (1, {}, "top_k must be between 1 and num_experts=1, got 2; use more experts or a smaller top_k"),
        (8, {"capacity_factor": -1}, "capacity_factor must be at least 0, got -1"),
        (8, {"eval_capacity_factor": -1}, "eval_capacity_factor must be at least 0, got -1"),
        (8, {"threshold": 0}, "threshold must be between 1e-06 and 1, got 0"),
        (8, {"threshold": 1.5}, "threshold must be between 1e-06 and 1, got 1.5"),
        (8, {"balance": -0.1}, "balance must be at least 0, got -0.1"),
        (8, {"z": -1}, "z must be at least 0, got -1"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(num_experts, arguments, message):
    with pytest.raises(ValueError) as error:
        GShardRouter(8, num_experts, **arguments)
    assert str(error.value) == message

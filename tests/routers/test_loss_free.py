"""Loss-free balancing: a bias on the choice that follows the counts of whole steps."""

import pytest
import torch

from workbench.core import RouteContext, Tally
from workbench.routers.loss_free import LossFreeRouter
from workbench.routers.top_k import TopKRouter

TRAIN = RouteContext(phase="train")


def tally(counts, *, layer: int = 0, iteration: int = 0, is_here: bool = True) -> Tally:
    demand = torch.as_tensor(counts)
    return Tally(
        layer=layer,
        iteration=iteration,
        demand=demand,
        kept=demand,
        losses={},
        tokens=int(demand.sum()) // 2,
        is_here=is_here,
    )


def busiest(counts: torch.Tensor) -> float:
    """How far the fullest expert is above the mean, as a share of the mean."""
    return float(counts.max() / counts.double().mean()) - 1


def test_without_a_bias_it_is_plain_top_k_forward_and_backward(with_logits, assert_close):
    x = torch.randn(50, 8)
    ours, plain = (
        with_logits(LossFreeRouter, 8, speed=0.0),
        with_logits(TopKRouter, 8, score="sigmoid", renormalise=False),
    )
    ours.update([tally([5, 2, 1, 0, 0, 0, 0, 0])])
    here, there = ours(x, TRAIN), plain(x, TRAIN)
    assert torch.equal(here.expert, there.expert)
    assert torch.equal(here.weight, there.weight)
    here.weight.square().sum().backward()
    there.weight.square().sum().backward()
    assert torch.equal(ours.gate.weight.grad, plain.gate.weight.grad)


def test_the_sign_rule_moves_every_bias_by_the_speed(assert_close):
    router = LossFreeRouter(8, 4)
    router.update([tally([5, 2, 1, 0])])
    assert_close(router.selection_bias, 1e-3 * torch.tensor([-1.0, 0, 1, 1]))
    assert busiest(torch.tensor([5, 2, 1, 0])) == 1.5


def test_the_proportional_rule_moves_by_the_lack_as_a_share_of_the_mean(assert_close):
    router = LossFreeRouter(8, 4, rule="proportional", speed=0.01)
    router.update([tally([5, 2, 1, 0])])
    assert_close(router.selection_bias, 0.01 * torch.tensor([-1.5, 0, 0.5, 1]))


def test_the_multiplicative_rule_moves_a_factor_that_begins_at_1(with_logits, assert_close, dense_weights):
    router = with_logits(LossFreeRouter, 4, rule="multiplicative", speed=0.25)
    assert router.selection_bias.tolist() == [1, 1, 1, 1]
    router.update([tally([5, 2, 1, 0])])
    assert_close(router.selection_bias, torch.tensor([0.75, 1, 1.25, 1.25]))
    # scores .6, .5, .45, .3 become .45, .5, .5625, .375.
    score = torch.tensor([[0.6, 0.5, 0.45, 0.3]])
    routing = router(score.logit(), TRAIN)
    assert routing.expert.tolist() == [[2, 1]]
    assert_close(dense_weights(routing), score * torch.tensor([0, 1, 1, 0]))


def test_the_weight_is_the_score_without_the_bias(with_logits, assert_close):
    router = with_logits(LossFreeRouter, 3, top_k=1)
    router.selection_bias.copy_(torch.tensor([0.0, 0.0, 1.0]))
    routing = router(torch.tensor([[0.9, 0.8, 0.1]]).logit(), TRAIN)
    assert routing.expert.tolist() == [[2]]
    assert_close(routing.weight, torch.tensor([[0.1]]))


def test_deepseek_divides_by_the_sum_and_scales(decide, assert_close):
    routing = decide(LossFreeRouter, torch.tensor([[0.9, 0.6, 0.1]]).logit(), renormalise=True, scale=2.5)
    assert_close(routing.weight, torch.tensor([[1.5, 1.0]]))


def test_softmax_scores_are_over_all_experts(decide, assert_close):
    routing = decide(LossFreeRouter, [[2.0, 1.0, 0.0, -1.0]], score="softmax")
    torch.testing.assert_close(routing.weight, torch.tensor([[0.6439, 0.2369]]), rtol=0, atol=5e-5)


def test_the_bias_is_saved_and_has_no_path_from_the_loss():
    router = LossFreeRouter(8, 4)
    assert set(router.state_dict()) == {"gate.weight", "selection_bias"}
    assert [name for name, _ in router.named_parameters()] == ["gate.weight"]
    assert not router.selection_bias.requires_grad
    router.selection_bias.requires_grad_()
    loss = router(torch.randn(9, 8), TRAIN).weight.sum()
    assert torch.autograd.grad(loss, router.selection_bias, allow_unused=True) == (None,)


def test_a_constant_on_all_biases_changes_nothing(with_logits):
    router, x = with_logits(LossFreeRouter, 8), torch.randn(500, 8)
    router.selection_bias.copy_(0.1 * torch.randn(8))
    before = router(x, TRAIN)
    router.selection_bias += 0.5
    assert torch.equal(router(x, TRAIN).expert, before.expert)
    assert torch.equal(router(x, TRAIN).weight, before.weight)


def test_counts_of_passes_are_added_and_those_of_other_layers_ignored(assert_close):
    router = LossFreeRouter(8, 4)
    # alone, the first pass would lower expert 0 and raise expert 3.
    passes = [tally([5, 2, 1, 0]), tally([0, 3, 1, 4], iteration=1)]
    router.update([*passes, tally([0, 99, 0, 0], layer=1, is_here=False)])
    assert_close(router.selection_bias, 1e-3 * torch.tensor([-1.0, -1, 1, 0]))


def test_one_step_over_summed_counts_is_not_one_step_per_micro_batch():
    parts = torch.tensor([[5, 2, 1, 0], [0, 1, 3, 4], [4, 2, 1, 1], [3, 2, 2, 1]])
    whole, apart = LossFreeRouter(8, 4), LossFreeRouter(8, 4)
    whole.update([tally(parts.sum(0))])
    for counts in parts:
        apart.update([tally(counts)])
    assert whole.selection_bias.tolist() != apart.selection_bias.tolist()
    assert whole.selection_bias.abs().max() <= 1.001e-3


@pytest.mark.parametrize("rule", ["sign", "proportional", "multiplicative"])
def test_a_step_without_tokens_moves_nothing(rule):
    router = LossFreeRouter(8, 4, rule=rule)
    before = router.selection_bias.clone()
    router.update([tally([0, 0, 0, 0])])
    router.update([])
    assert torch.equal(router.selection_bias, before)


def balanced(with_logits, speed: float, steps: int) -> list[float]:
    """The excess of the busiest expert at every step of a toy with 8 experts of different popularity."""
    generator = torch.Generator().manual_seed(0)
    popularity = torch.randn(8, generator=generator)
    router, excess = with_logits(LossFreeRouter, 8, speed=speed), []
    for _ in range(steps):
        demand = router(popularity + torch.randn(4096, 8, generator=generator), TRAIN).demand
        excess.append(busiest(demand))
        router.update([tally(demand)])
    return excess


def test_a_faster_bias_balances_sooner_and_jitters_more(with_logits):
    fast, slow = balanced(with_logits, 0.01, 120), balanced(with_logits, 0.001, 480)
    assert fast[0] > 0.5
    first = [next(step for step, excess in enumerate(run) if excess < 0.1) for run in (fast, slow)]
    assert 6 < first[1] / first[0] < 14
    assert 10 <= first[0] <= 40
    late = [sum(run[-60:]) / 60 for run in (fast, slow)]
    assert late[1] < late[0] < 0.12


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"top_k": 0}, "top_k must be between 1 and num_experts=8, got 0; use more experts or a smaller top_k"),
        ({"speed": -1}, "speed must be at least 0, got -1"),
        ({"scale": -1}, "scale must be at least 0, got -1"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(arguments, message):
    with pytest.raises(ValueError) as error:
        LossFreeRouter(8, 8, **arguments)
    assert str(error.value) == message

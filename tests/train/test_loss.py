"""Losses worked by hand; the numbers of the balance and z-loss are those of the top-k card."""

import math

import pytest
import torch
from torch import Tensor

from workbench.core import Card, RouteContext, Router, Site, SparseRouting
from workbench.train.global_counts import GlobalCounts
from workbench.train.loss import (
    NOT_SCORED,
    auxiliary,
    balance,
    check_losses,
    entropy,
    place_losses,
    token_losses,
    z_loss,
)
from workbench.train.loss_rules import LossRules


def routing_of(expert: Tensor, prob: Tensor | None = None, logit: Tensor | None = None) -> SparseRouting:
    weight = torch.ones(expert.shape)
    count = next(t.shape[1] for t in (prob, logit) if t is not None)
    return SparseRouting.from_topk(expert, weight, num_experts=count, prob=prob, logit=logit)


def load_of(routing: SparseRouting) -> Tensor:
    return routing.demand / routing.demand.sum()


class Fixed(Router):
    """A router whose loss weights and own losses are given; it never routes."""

    card = Card("a double for the losses")
    causal = causal_in_training = True

    def __init__(self, weights: dict[str, float], own: dict[str, Tensor] | None = None):
        super().__init__(4, 4)
        self._weights, self._own, self.seen = weights, own or {}, []

    @property
    def loss_weights(self):
        return self._weights

    def forward(self, x, context):
        raise AssertionError("the losses never route")

    def losses(self, routing, load, token_loss, context):
        self.seen.append((load, token_loss))
        return self._own


def site(routing: SparseRouting, layer: int = 0) -> Site:
    return Site(layer=layer, iteration=0, module=f"blocks.{layer}", router="fixed", routing=routing)


def even_routing(num_experts: int = 4) -> SparseRouting:
    expert = torch.arange(num_experts).unsqueeze(-1)
    logit = torch.zeros(num_experts, num_experts, requires_grad=True)
    return routing_of(expert, prob=logit.softmax(-1), logit=logit)


def test_token_losses_are_minus_the_log_of_the_targets_probability():
    logits = torch.tensor([[0.5, 0.25, 0.25], [0.1, 0.2, 0.7]]).log().unsqueeze(0)
    found = token_losses(logits, torch.tensor([[0, 2]]))
    torch.testing.assert_close(found, torch.tensor([math.log(2), -math.log(0.7)]))


def test_a_place_without_a_target_has_no_loss_and_no_gradient():
    logits = torch.randn(1, 3, 5, requires_grad=True)
    found = token_losses(logits, torch.tensor([[1, NOT_SCORED, 2]]))
    assert found.shape == (2,)
    found.sum().backward()
    assert logits.grad[0, 1].abs().sum() == 0
    assert logits.grad[0, 2].abs().sum() > 0


def test_token_losses_are_taken_in_float32():
    logits = torch.randn(1, 4, 50).bfloat16()
    expected = token_losses(logits.float(), torch.tensor([[1, 2, 3, 4]]))
    assert torch.equal(token_losses(logits, torch.tensor([[1, 2, 3, 4]])), expected)


@pytest.mark.parametrize("top_k", [1, 2, 3])
def test_balance_is_one_at_an_even_load_for_any_number_of_choices(top_k):
    tokens, experts = 12, 4
    expert = (torch.arange(tokens)[:, None] + torch.arange(top_k)) % experts
    routing = routing_of(expert, prob=torch.rand(tokens, experts).softmax(-1))
    torch.testing.assert_close(balance(routing, load_of(routing)), torch.tensor(1.0))


def test_balance_is_the_number_of_experts_when_all_tokens_take_one_for_certain():
    prob = torch.tensor([[1.0, 0, 0, 0]]).expand(6, 4)
    routing = routing_of(torch.zeros(6, 1, dtype=torch.long), prob=prob)
    torch.testing.assert_close(balance(routing, load_of(routing)), torch.tensor(4.0))


def test_balance_may_fall_below_one_where_load_and_probability_disagree():
    # 60 % of the tokens barely prefer expert 0, 40 % are certain of expert 1.
    prob = torch.tensor([[0.51, 0.49]] * 6 + [[0.0, 1.0]] * 4)
    routing = routing_of(prob.argmax(-1, keepdim=True), prob=prob)
    torch.testing.assert_close(balance(routing, load_of(routing)), torch.tensor(2 * (0.6 * 0.306 + 0.4 * 0.694)))


def test_the_gradient_of_balance_goes_to_probabilities_with_the_load_as_a_constant():
    prob = torch.tensor([[0.7, 0.3], [0.6, 0.4]], requires_grad=True)
    routing = routing_of(torch.tensor([[0], [0]]), prob=prob)
    balance(routing, load_of(routing)).backward()
    torch.testing.assert_close(prob.grad, torch.tensor([[1.0, 0.0], [1.0, 0.0]]))


@pytest.mark.parametrize(("experts", "expected"), [(4, 1.9218), (8, 4.3241)])
def test_z_loss_of_zero_logits_is_the_squared_log_of_the_number_of_experts(experts, expected):
    routing = routing_of(torch.zeros(3, 1, dtype=torch.long), logit=torch.zeros(3, experts))
    assert float(z_loss(routing, torch.ones(experts))) == pytest.approx(expected, abs=5e-5)


def test_a_common_shift_moves_the_z_loss_and_not_the_balance():
    logit = torch.randn(9, 4)
    near, far = (routing_of(logit.argmax(-1, keepdim=True), (logit + c).softmax(-1), logit + c) for c in (0.0, 3.0))
    torch.testing.assert_close(balance(near, load_of(near)), balance(far, load_of(far)))
    expected = (logit.logsumexp(-1) + 3).square().mean()
    torch.testing.assert_close(z_loss(far, load_of(far)), expected)
    assert float(expected) > float(z_loss(near, load_of(near))) + 1


def test_entropy_is_the_log_of_the_choices_left():
    prob = torch.tensor([[0.25, 0.25, 0.25, 0.25], [0.5, 0.5, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0]])
    routing = routing_of(torch.zeros(3, 1, dtype=torch.long), prob=prob)
    expected = (math.log(4) + math.log(2)) / 3
    assert float(entropy(routing, torch.ones(4))) == pytest.approx(expected, rel=1e-6)


def test_entropy_has_a_finite_gradient_where_softmax_reaches_zero():
    logit = torch.tensor([[0.0, -200.0]], requires_grad=True)
    entropy(routing_of(torch.tensor([[0]]), prob=logit.softmax(-1)), torch.ones(2)).backward()
    assert torch.equal(logit.grad, torch.zeros(1, 2))


@pytest.mark.parametrize("loss", [balance, entropy])
def test_no_token_is_no_loss(loss):
    routing = routing_of(torch.zeros(0, 1, dtype=torch.long), prob=torch.zeros(0, 4))
    assert float(loss(routing, torch.zeros(4))) == 0


def test_a_loss_without_what_it_needs_says_so():
    routing = routing_of(torch.zeros(2, 1, dtype=torch.long), logit=torch.zeros(2, 4))
    with pytest.raises(ValueError, match=r"the balance loss needs probabilities.*set its weight to 0"):
        balance(routing, torch.ones(4))


def test_the_total_is_the_weighted_sum_over_losses_and_layers():
    routers = [Fixed({"balance": 0.5, "z": 2.0}), Fixed({"balance": 0.25})]
    found = auxiliary((site(even_routing()), site(even_routing(), 1)), routers, torch.ones(4), RouteContext())
    z = math.log(4) ** 2
    assert found.total.item() == pytest.approx(0.5 + 2 * z + 0.25, rel=1e-6)
    assert found.means == pytest.approx({"balance": 1.0, "z": z})
    assert found.weights == pytest.approx({"balance": 0.375, "z": 2.0})
    assert found.per_site == [pytest.approx({"balance": 1.0, "z": z}), pytest.approx({"balance": 1.0})]


def test_a_weight_of_zero_leaves_the_loss_out():
    router = Fixed({"balance": 0.0, "own": 0.0}, {"own": torch.tensor(math.nan)})
    found = auxiliary((site(even_routing()),), [router], torch.ones(4), RouteContext())
    assert float(found.total) == 0
    assert (found.means, found.weights, found.per_site) == ({}, {}, [{}])


def test_a_routers_own_loss_replaces_the_common_one():
    router = Fixed({"balance": 1.0}, {"balance": torch.tensor(7.0)})
    assert auxiliary((site(even_routing()),), [router], torch.ones(4), RouteContext()).means == {"balance": 7.0}


def test_routers_see_the_load_and_the_loss_of_every_token_without_its_graph():
    router, per_token = Fixed({}), torch.ones(4, requires_grad=True)
    auxiliary((site(even_routing()),), [router], per_token, RouteContext())
    [(load, seen)] = router.seen
    assert load.tolist() == [0.25] * 4
    assert torch.equal(seen, per_token)
    assert not seen.requires_grad


def test_a_loss_that_nobody_defines_is_refused_by_name():
    with pytest.raises(ValueError, match=r"router fixed has a weight for loss 'ballance'.*balance, z, entropy"):
        auxiliary((site(even_routing()),), [Fixed({"ballance": 0.0})], torch.ones(4), RouteContext())


def test_a_model_without_experts_has_no_auxiliary_loss():
    found = auxiliary((), [], torch.ones(4), RouteContext())
    assert float(found.total) == 0
    assert found.means == {}


def test_the_training_adds_replaces_and_scales_weights():
    rules = LossRules(weights={"balance": 0.5, "entropy": 2.0}, factors={"entropy": 0.25, "z": 0.0})
    router = Fixed({"balance": 9.0, "z": 3.0})
    found = auxiliary((site(even_routing()),), [router], torch.ones(4), RouteContext(), rules)
    assert found.total.item() == pytest.approx(0.5 + 0.5 * math.log(4), rel=1e-6)
    # a loss that has come down to nothing is not computed, and its weight is still told.
    assert found.weights == {"balance": 0.5, "entropy": 0.5, "z": 0.0}
    assert set(found.means) == {"balance", "entropy"}


def test_routers_are_handed_the_load_of_the_whole_step():
    router, rules = Fixed({"balance": 1.0}), LossRules(counts=GlobalCounts())
    for expert in (0, 1):
        one = routing_of(torch.full((4, 1), expert), prob=torch.tensor([[0.5, 0.5]]).expand(4, 2))
        auxiliary((site(one),), [router], torch.ones(4), RouteContext(), rules)
    assert [load.tolist() for load, _ in router.seen] == [[1, 0], [0.5, 0.5]]


def test_a_loss_of_one_router_of_the_model_is_known():
    routers = [Fixed({"balance": 0.0}), Fixed({"own": 1.0})]
    check_losses(["own", "entropy"], ["own", "entropy", "balance"], routers, "fixed")
    with pytest.raises(
        ValueError, match=r"no auxiliary loss 'owl' \(did you mean 'own'\?\); .*balance, own, z, entropy"
    ):
        check_losses(["owl"], [], routers, "fixed")
    with pytest.raises(ValueError, match="aux_schedule names loss 'z', which has no weight with router fixed"):
        check_losses([], ["z"], routers, "fixed")


def test_without_experts_there_is_no_loss_to_name_wrongly():
    check_losses(["anything"], ["else"], [], "fixed")


def test_a_target_outside_of_the_vocabulary_is_an_error_and_no_silent_nan():
    with pytest.raises(ValueError, match=r"targets must lie in 0\.\.4 or be -100, got 5; use the tokenizer"):
        place_losses(torch.zeros(1, 3, 5), torch.tensor([[0, -100, 5]]))

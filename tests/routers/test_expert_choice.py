"""Expert choice: experts pick tokens, and look ahead to do so."""

import pytest
import torch

from workbench.core import RouteContext
from workbench.routers.expert_choice import ExpertChoiceRouter

HAND = torch.tensor([[0.6, 0.4], [0.5, 0.5]]).log()


def test_each_expert_takes_its_favourite_token(decide, chosen, dense_weights):
    # the card's eighth point: one slot each.
    routing = decide(ExpertChoiceRouter, HAND, capacity_factor=1.0)
    assert chosen(routing) == [{0}, {1}]
    torch.testing.assert_close(dense_weights(routing), torch.tensor([[0.6, 0.0], [0.0, 0.5]]))


def test_a_later_token_takes_an_expert_away(decide, chosen):
    changed = torch.tensor([[0.6, 0.4], [0.7, 0.3]]).log()
    assert chosen(decide(ExpertChoiceRouter, changed, capacity_factor=1.0)) == [{1}, {0}]


@pytest.mark.parametrize(
    ("tokens", "experts", "factor"), [(128, 8, 2.0), (7, 4, 2.0), (100, 8, 1.0), (6, 4, 0.5), (5, 4, 9.0)]
)
def test_every_expert_gets_exactly_its_capacity(decide, tokens, experts, factor):
    routing = decide(ExpertChoiceRouter, torch.randn(tokens, experts), capacity_factor=factor)
    capacity = min(tokens, max(1, round(factor * tokens / experts)))
    assert routing.counts.tolist() == routing.demand.tolist() == [capacity] * experts


def test_a_token_may_get_every_expert_or_none(decide, chosen):
    # token 0 prefers nobody and everybody prefers it: its probabilities are even, the others' are not.
    logits = [[0.0, 0.0], [9.0, -9.0], [-9.0, 9.0]]
    sets = chosen(decide(ExpertChoiceRouter, logits, capacity_factor=4 / 3))
    assert sets == [{0, 1}, {0}, {1}]
    assert chosen(decide(ExpertChoiceRouter, [[0.0, 0.0], [1.0, 1.0], [9.0, 9.0]], capacity_factor=2 / 3)) == [
        {0, 1},
        set(),
        set(),
    ]


def test_weights_are_the_probabilities_unchanged(decide, dense_weights):
    logits = torch.randn(64, 8)
    weights = dense_weights(decide(ExpertChoiceRouter, logits))
    taken = weights > 0
    torch.testing.assert_close(weights[taken], logits.softmax(-1)[taken])
    assert int(taken.sum()) == 2 * 64


def test_the_choice_is_the_same_in_every_phase(decide):
    logits = torch.randn(32, 4)
    plans = [decide(ExpertChoiceRouter, logits, RouteContext(phase=p)) for p in ("train", "eval", "prefill", "decode")]
    assert all(torch.equal(plan.expert, plans[0].expert) for plan in plans)


def test_a_banned_expert_takes_nothing_and_the_others_as_before(decide, dense_weights):
    logits = torch.randn(32, 4)
    plain = dense_weights(decide(ExpertChoiceRouter, logits))
    banned = decide(ExpertChoiceRouter, logits, RouteContext(bias=torch.tensor([0, 0, -torch.inf, 0])))
    assert banned.counts.tolist() == [16, 16, 0, 16]
    assert torch.equal(dense_weights(banned), plain * torch.tensor([1, 1, 0, 1]))


def test_it_is_not_causal_and_has_no_balance_loss():
    router = ExpertChoiceRouter(8, 4)
    assert (router.causal, router.causal_in_training, router.loss_weights) == (False, False, {})


def test_a_negative_capacity_is_refused():
    with pytest.raises(ValueError, match=r"^capacity_factor must be at least 0, got -1$"):
        ExpertChoiceRouter(8, 4, capacity_factor=-1)

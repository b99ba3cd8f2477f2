"""Every router: what it declares of later tokens and batch mates is what it does."""

from collections.abc import Mapping

import pytest
import torch

from workbench.core import Card, RouteContext, Router, SlotRouting, SparseRouting


def moves_the_past(layer, stage, tokens, place: int, phase: str) -> bool:
    """Whether another token at a place changes a decision before it, or through a slot what such a token gets."""
    past, both = slice(0, place), (tokens, tokens.changed(place))
    here, there = (stage.decide(layer.router, given, phase) for given in both)
    if stage.differ(stage.decision(here).at(past), stage.decision(there).at(past)):
        return True
    if not isinstance(here, SlotRouting):
        return False
    # a token's weights say nothing of what lies in the slots.
    outs = [
        one.apply(given.x, layer.all_experts, RouteContext())[past]
        for one, given in zip((here, there), both, strict=True)
    ]
    return not torch.allclose(*outs, rtol=1e-4, atol=1e-5)


def leaks(cls: type[Router], stage, phase: str) -> bool:
    """Whether any of several later tokens moves an earlier decision, in one sequence long enough to fill capacities."""
    layer = stage.layer_of(cls)
    batches = [stage.tokens_of(96, seed=seed) for seed in range(4)]
    return any(moves_the_past(layer, stage, tokens, place, phase) for tokens in batches for place in (95, 80, 40, 5))


def check_causality(cls: type[Router], stage) -> None:
    """Outside training no later token moves an earlier decision, exactly when the router says so."""
    is_causal = stage.layer_of(cls).router.causal
    assert leaks(cls, stage, "prefill") is not is_causal


def check_causality_in_training(cls: type[Router], stage) -> None:
    """The same for the training rule."""
    is_causal = stage.layer_of(cls).router.causal_in_training
    assert leaks(cls, stage, "train") is not is_causal


def check_prefixes(cls: type[Router], stage, close: Mapping[str, float]) -> None:
    """A causal router decides about the beginning of a text as it does about that beginning alone."""
    router, tokens = stage.layer_of(cls).router, stage.tokens_of(60)
    if router.causal:
        whole = stage.decision(stage.decide(router, tokens))
        for length in (1, 2, 17, 59):
            part = stage.decision(stage.decide(router, tokens[:length]))
            stage.assert_same(part, whole.at(slice(0, length)), close)


def check_batch_mates(cls: type[Router], stage, close: Mapping[str, float]) -> None:
    """A causal router decides about a sequence as it does about that sequence alone, in prefill and decode."""
    router, tokens = stage.layer_of(cls).router, stage.tokens_of(30, 1, 50)
    if router.causal:
        for phase in ("prefill", "decode"):
            whole = stage.decision(stage.decide(router, tokens, phase))
            for sequence in range(3):
                own = tokens.sequence == sequence
                alone = tokens[own]
                alone.sequence.zero_()
                stage.assert_same(stage.decision(stage.decide(router, alone, phase)), whole.at(own), close)


def check_permutation(cls: type[Router], stage, close: Mapping[str, float]) -> None:
    """Tokens given in another order, with their places, get the same decisions in that order."""
    router, tokens = stage.layer_of(cls).router, stage.tokens_of(30, 1, 50)
    order = torch.randperm(len(tokens), generator=torch.Generator().manual_seed(0))
    whole = stage.decision(stage.decide(router, tokens))
    stage.assert_same(stage.decision(stage.decide(router, tokens[order])), whole.at(order), close)


def test_what_it_says_of_later_tokens_is_true_outside_training(router, stage):
    check_causality(router, stage)


def test_what_it_says_of_later_tokens_is_true_in_training(router, stage):
    check_causality_in_training(router, stage)


def test_a_causal_router_decides_about_a_beginning_as_if_it_were_all(router, stage, tolerance):
    check_prefixes(router, stage, tolerance[torch.float32])


def test_a_causal_router_ignores_batch_mates(router, stage, tolerance):
    check_batch_mates(router, stage, tolerance[torch.float32])


def test_permuted_tokens_get_permuted_decisions(router, stage, tolerance):
    check_permutation(router, stage, tolerance[torch.float32])


class Gated(Router):
    """Top 1 over a gate, once a subclass has changed what the gate sees."""

    card = Card("planted")
    causal = causal_in_training = True

    def __init__(self, width: int, num_experts: int, *, layer: int = 0):
        super().__init__(width, num_experts, layer=layer)
        self.gate = torch.nn.Linear(width, num_experts, bias=False)

    def forward(self, x, context):
        weight, expert = self.gate(self.seen(x, context)).softmax(-1).max(-1, keepdim=True)
        keep = self.kept(expert)
        weight = weight if keep is None else weight * keep
        return SparseRouting.from_topk(expert, weight, keep=keep, num_experts=self.num_experts)

    def seen(self, x, context):
        return x

    def kept(self, expert):
        return None


class SeesTheMean(Gated):
    def seen(self, x, context):
        return x - x.mean(0)


class SeesTheMeanInTraining(Gated):
    def seen(self, x, context):
        return x - x.mean(0) if context.is_training else x


class SaysItLooksAhead(Gated):
    causal = causal_in_training = False


class MixesAllIntoSlots(Gated):
    def forward(self, x, context):
        prob = self.gate(x).softmax(-1).unsqueeze(-1)
        return SlotRouting(num_experts=self.num_experts, dispatch=prob / len(x), combine=prob)


class CapacityInPrefill(Gated):
    def kept(self, expert):
        # causal, since earlier tokens come first, and yet a function of the number of tokens.
        rank = (expert == expert.t()).tril().sum(-1, keepdim=True)
        return rank <= max(1, len(expert) // 8)


class SeesTheOtherSequences(Gated):
    def seen(self, x, context):
        return x - torch.roll(x, 1, 0) * (context.sequence > 0).unsqueeze(-1)


class SeesTheRow(Gated):
    def seen(self, x, context):
        return x + torch.arange(len(x)).unsqueeze(-1) % 3


@pytest.mark.parametrize(
    ("check", "fault"),
    [
        (check_causality, SeesTheMean),
        (check_causality, MixesAllIntoSlots),
        (check_causality, SaysItLooksAhead),
        (check_causality_in_training, SeesTheMean),
        (check_causality_in_training, SeesTheMeanInTraining),
        (check_causality_in_training, SaysItLooksAhead),
    ],
    ids=lambda value: value.__name__,
)
def test_a_false_statement_is_found(check, fault, stage, plant):
    with pytest.raises(AssertionError):
        check(plant(fault), stage)


@pytest.mark.parametrize(
    ("check", "fault"),
    [
        (check_prefixes, SeesTheMean),
        (check_prefixes, CapacityInPrefill),
        (check_batch_mates, SeesTheOtherSequences),
        (check_batch_mates, CapacityInPrefill),
        (check_permutation, SeesTheRow),
    ],
    ids=lambda value: value.__name__,
)
def test_a_dependence_on_others_is_found(check, fault, stage, plant, tolerance):
    with pytest.raises(AssertionError):
        check(plant(fault), stage, tolerance[torch.float32])


def test_a_fault_in_training_alone_is_not_blamed_on_prefill(stage, plant):
    check_causality(plant(SeesTheMeanInTraining), stage)

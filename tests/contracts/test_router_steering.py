"""Every router: a bias of a person on the choice does what it says, or nothing where the router takes none."""

from collections.abc import Mapping

import pytest
import torch

from workbench.core import Card, Router, SparseRouting


def decided(layer, stage, tokens, phase: str, bias: torch.Tensor | None):
    """The decision under a bias over the model's experts."""
    return stage.decision(stage.decide(layer.router, tokens, phase, bias=bias))


def check_zero(cls: type[Router], stage) -> None:
    """A bias of 0 is the identity, bit by bit, for every router."""
    layer, tokens = stage.layer_of(cls), stage.tokens_of(30, 34)
    for phase in stage.PHASES:
        plain = decided(layer, stage, tokens, phase, None)
        stage.assert_same(decided(layer, stage, tokens, phase, torch.zeros(stage.EXPERTS)), plain)


def check_no_effect(cls: type[Router], stage) -> None:
    """A router that takes no bias decides as it would without one."""
    layer, tokens = stage.layer_of(cls), stage.tokens_of(64)
    if not layer.router.steerable:
        bias = torch.linspace(-2, 2, stage.EXPERTS)
        bias[0] = -torch.inf
        stage.assert_same(
            decided(layer, stage, tokens, "prefill", bias), decided(layer, stage, tokens, "prefill", None)
        )


def check_ban(cls: type[Router], stage) -> None:
    """A banned expert gets no row and no weight; with all banned the output is 0 and gradients are finite."""
    layer, tokens = stage.layer_of(cls), stage.tokens_of(64)
    if not layer.router.steerable:
        return
    for banned in ([0], [1, 3, 5], list(range(stage.EXPERTS - 1)), list(range(stage.EXPERTS))):
        bias = torch.zeros(stage.EXPERTS)
        bias[banned] = -torch.inf
        for phase in stage.PHASES:
            context = stage.context_of(layer.router, tokens, phase, bias=bias)
            routing = layer.router(tokens.x, context)
            assert routing.counts[banned].sum() == 0, f"a banned expert has rows in {phase}"
            flat = routing.assignments()
            assert (flat.weight[~flat.kept] == 0).all(), "a banned choice has a weight"
            free = set(range(stage.EXPERTS)) - set(banned)
            assert not free or int(routing.counts.sum()) > 0, "a ban of some is a ban of all"
    out = routing.apply(tokens.x, layer.all_experts, context)
    # a router's extra experts cannot be banned, and those that give nothing give no gradient.
    if not layer.router.extra_experts:
        assert out.abs().max() == 0
    if out.requires_grad or not layer.router.extra_experts:
        out.sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in layer.router.parameters())


def check_common_shift(cls: type[Router], stage, close: Mapping[str, float]) -> None:
    """The same bias for all experts changes nothing: it is for the choice, and never in the weight.

    A router with extra experts is left out: they take no bias, so it moves tokens between them and the model's.
    """
    layer, tokens = stage.layer_of(cls), stage.tokens_of(64)
    if layer.router.steerable and not layer.router.extra_experts:
        for phase in ("train", "prefill"):
            moved = decided(layer, stage, tokens, phase, torch.full((stage.EXPERTS,), 0.5))
            stage.assert_same(moved, decided(layer, stage, tokens, phase, None), close)


def check_push(cls: type[Router], stage) -> None:
    """A large bias for one expert never costs it a token, and is not in the weight of who already chose it."""
    layer, tokens = stage.layer_of(cls), stage.tokens_of(64)
    if not layer.router.steerable:
        return
    plain = decided(layer, stage, tokens, "prefill", None)
    asked = plain.asked.sum(0)[: stage.EXPERTS]
    least = int(torch.where(asked > 0, asked, torch.inf).argmin())
    bias = torch.zeros(stage.EXPERTS)
    bias[least] = 100.0
    pushed = decided(layer, stage, tokens, "prefill", bias)
    assert (pushed.asked[:, least] >= plain.asked[:, least]).all()
    if layer.router.causal and asked.min() < len(tokens):
        assert pushed.asked[:, least].all(), "a token did not follow a bias of 100"
    same = (pushed.asked == plain.asked).all(-1)
    assert torch.equal(pushed.weight[same], plain.weight[same])


def test_a_bias_of_zero_is_the_identity(router, stage):
    check_zero(router, stage)


def test_a_router_that_takes_no_bias_ignores_it(router, stage):
    check_no_effect(router, stage)


def test_a_banned_expert_gets_no_row(router, stage):
    check_ban(router, stage)


def test_a_bias_common_to_all_experts_changes_nothing(router, stage, tolerance):
    check_common_shift(router, stage, tolerance[torch.float32])


def test_a_push_brings_tokens_and_no_weight(router, stage):
    check_push(router, stage)


class Pushed(Router):
    """Top 1 over a gate; subclasses plant how the bias enters."""

    card = Card("planted")
    causal = causal_in_training = steerable = True

    def __init__(self, width: int, num_experts: int, *, layer: int = 0):
        super().__init__(width, num_experts, layer=layer)
        self.gate = torch.nn.Linear(width, num_experts, bias=False)

    def forward(self, x, context):
        logit = self.gate(x)
        bias = torch.zeros(self.num_experts) if context.bias is None else context.bias
        return self.steered(logit, bias, context)

    def top(self, ranking, weight):
        expert = ranking.argmax(-1, keepdim=True)
        return SparseRouting.from_topk(expert, weight.gather(1, expert), num_experts=self.num_experts)


class IgnoresTheBias(Pushed):
    def steered(self, logit, bias, context):
        return self.top(logit, logit.softmax(-1))


class WeighsTheBias(Pushed):
    def steered(self, logit, bias, context):
        return self.top(logit + bias, logit.sigmoid() * (1 + bias.clamp(-1, 1)))


class ScoresWithTheBias(Pushed):
    def steered(self, logit, bias, context):
        return self.top(logit + bias, (logit + bias).nan_to_num(neginf=-99).softmax(-1))


class NoisyWithABias(Pushed):
    def steered(self, logit, bias, context):
        noise = 0 if context.bias is None else context.noise(tuple(logit.shape))
        return self.top(logit + noise, logit.softmax(-1))


class SecretlySteered(Pushed):
    steerable = False

    def steered(self, logit, bias, context):
        return self.top(logit + bias, logit.softmax(-1))


class BansByAFiniteNumber(Pushed):
    def steered(self, logit, bias, context):
        return self.top(logit + bias.clamp_min(-1e-3), logit.softmax(-1))


@pytest.mark.parametrize(
    ("check", "fault"),
    [
        (check_zero, NoisyWithABias),
        (check_no_effect, SecretlySteered),
        (check_ban, IgnoresTheBias),
        (check_ban, BansByAFiniteNumber),
        (check_push, IgnoresTheBias),
        (check_push, ScoresWithTheBias),
    ],
    ids=lambda value: value.__name__,
)
def test_a_planted_fault_is_found(check, fault, stage, plant):
    with pytest.raises(AssertionError):
        check(plant(fault), stage)


def test_a_bias_in_the_weight_is_found(stage, plant, tolerance):
    with pytest.raises(AssertionError):
        check_common_shift(plant(WeighsTheBias), stage, tolerance[torch.float32])

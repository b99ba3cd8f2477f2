"""Every router: shapes, dtypes, bookkeeping, and an output that is what the decision says."""

import pytest
import torch

from workbench.core import Card, Router, SparseRouting
from workbench.routers.top_k import TopKRouter


def check_bookkeeping(router: Router, routing, tokens: int) -> None:
    """Sizes, dtypes and ranges of a decision, and that demand, counts and assignments say the same."""
    experts = router.num_experts + sum(spec.args["num_experts"] for spec in router.extra_experts)
    assert (routing.num_tokens, routing.num_experts) == (tokens, experts)
    flat = routing.assignments()
    assert flat.weight.dtype == torch.float32
    assert (flat.token.dtype, flat.expert.dtype, flat.kept.dtype) == (torch.int64, torch.int64, torch.bool)
    assert flat.weight.isfinite().all()
    assert (flat.weight >= 0).all()
    assert (flat.weight[~flat.kept] == 0).all(), "a dropped assignment has a weight"
    for index, limit in ((flat.token, tokens), (flat.expert, experts)):
        assert ((index >= 0) & (index < limit)).all()
    assert routing.demand.dtype == routing.counts.dtype == torch.int64
    assert routing.demand.shape == routing.counts.shape == (experts,)
    if isinstance(routing, SparseRouting):
        assert torch.equal(routing.demand, torch.bincount(flat.expert, minlength=experts))
        assert torch.equal(routing.counts, torch.bincount(flat.expert[flat.kept], minlength=experts))
        dropped = int((~flat.kept).sum())
        assert int(routing.demand.sum()) == int(routing.counts.sum()) + dropped == len(flat.token)
        pairs = flat.token * experts + flat.expert
        assert len(pairs.unique()) == len(pairs), "a token asks the same expert twice"


def check_scores(routing, tokens: int) -> None:
    """Probabilities and logits, where the router has them."""
    for score in (routing.prob, routing.logit):
        if score is not None:
            assert score.dtype == torch.float32
            assert len(score) == tokens
            assert score.isfinite().all()
    if routing.prob is not None:
        assert (routing.prob >= 0).all()
        torch.testing.assert_close(routing.prob.sum(-1), torch.ones(tokens))
    if routing.ahead is not None:
        assert len(routing.ahead) == tokens


def check_decision(cls: type[Router], stage, tokens: int, num_experts: int) -> None:
    """A decision over so many tokens is complete and consistent, and gives an output of the tokens' shape."""
    layer, batch = stage.layer_of(cls, num_experts=num_experts), stage.tokens_of(tokens)
    for phase in stage.PHASES:
        context = stage.context_of(layer.router, batch, phase)
        routing = layer.router(batch.x, context)
        check_bookkeeping(layer.router, routing, tokens)
        check_scores(routing, tokens)
        out = routing.apply(batch.x, layer.all_experts, context)
        assert out.shape == batch.x.shape
        assert out.dtype == batch.x.dtype
        assert out.isfinite().all()


def check_output(cls: type[Router], stage, close) -> None:
    """The output is the weighted sum of the assignments, computed one at a time."""
    layer, batch = stage.layer_of(cls, num_experts=4), stage.tokens_of(4, 9)
    for phase in ("train", "prefill"):
        context = stage.context_of(layer.router, batch, phase)
        routing = layer.router(batch.x, context)
        if isinstance(routing, SparseRouting):
            out = routing.apply(batch.x, layer.all_experts, context)
            torch.testing.assert_close(out, stage.by_hand(layer, routing, batch.x), **close)


def check_autocast(cls: type[Router], stage, close) -> None:
    """Under autocast the decision is that of the same tokens in float32, and stays float32."""
    layer, batch = stage.layer_of(cls), stage.tokens_of(12, 20)
    rounded = stage.Tokens(batch.x.bfloat16(), batch.token_id, batch.sequence, batch.position)
    exact = stage.Tokens(rounded.x.float(), batch.token_id, batch.sequence, batch.position)
    for phase in ("train", "prefill"):
        context = stage.context_of(layer.router, rounded, phase)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            routing = layer.router(rounded.x, context)
            out = routing.apply(rounded.x, layer.all_experts, context)
        assert out.dtype == torch.bfloat16
        assert out.isfinite().all()
        check_bookkeeping(layer.router, routing, 32)
        check_scores(routing, 32)
        stage.assert_same(stage.decision(routing), stage.decision(stage.decide(layer.router, exact, phase)), close)


@pytest.mark.parametrize("num_experts", [4, 8])
@pytest.mark.parametrize("tokens", [0, 1, 7, 128])
def test_a_decision_is_complete_and_consistent(router, stage, tokens, num_experts):
    check_decision(router, stage, tokens, num_experts)


def test_the_output_is_what_the_assignments_say(router, stage, tolerance):
    check_output(router, stage, tolerance[torch.float32])


def test_autocast_does_not_change_the_decision(router, stage, tolerance):
    check_autocast(router, stage, tolerance[torch.float32])


def test_the_decision_can_be_looked_at(router, stage):
    routing = stage.decide(stage.layer_of(router).router, stage.tokens_of(5))
    assert "tokens=5" in repr(routing)
    assert 0 < len(routing._repr_html_()) < 5000


class Faulty(Router):
    """Top 1 over a gate, with a fault that each subclass plants."""

    card = Card("planted")
    causal = causal_in_training = True

    def __init__(self, width: int, num_experts: int, *, layer: int = 0):
        super().__init__(width, num_experts, layer=layer)
        self.gate = torch.nn.Linear(width, num_experts, bias=False)

    def forward(self, x, context):
        return self.faulty(self.gate(x.float()), x)


class RoundedProbabilities(Faulty):
    def faulty(self, logit, x):
        weight, expert = logit.softmax(-1).max(-1, keepdim=True)
        return SparseRouting.from_topk(expert, weight, num_experts=self.num_experts, prob=logit.bfloat16().softmax(-1))


class UnnormalisedProbabilities(Faulty):
    def faulty(self, logit, x):
        weight, expert = logit.softmax(-1).max(-1, keepdim=True)
        return SparseRouting.from_topk(expert, weight, num_experts=self.num_experts, prob=logit.exp())


class NegativeWeights(Faulty):
    def faulty(self, logit, x):
        return SparseRouting.from_topk(
            logit.argmin(-1, keepdim=True), logit.amin(-1, keepdim=True), num_experts=self.num_experts
        )


class WeightOfTheDropped(Faulty):
    def faulty(self, logit, x):
        weight, expert = logit.softmax(-1).max(-1, keepdim=True)
        return SparseRouting.from_topk(
            expert, weight, keep=torch.arange(len(x)).unsqueeze(-1) < 3, num_experts=self.num_experts
        )


class TheSameExpertTwice(Faulty):
    def faulty(self, logit, x):
        weight, expert = logit.softmax(-1).max(-1, keepdim=True)
        return SparseRouting.from_topk(expert.expand(-1, 2), weight.expand(-1, 2) / 2, num_experts=self.num_experts)


class FewerExperts(Faulty):
    def faulty(self, logit, x):
        weight, expert = logit[:, :-1].softmax(-1).max(-1, keepdim=True)
        return SparseRouting.from_topk(expert, weight, num_experts=self.num_experts - 1)


class NothingForNoTokens(Faulty):
    def faulty(self, logit, x):
        weight, expert = logit.softmax(-1).max(-1, keepdim=True)
        return SparseRouting.from_topk(expert, weight / logit.amax().clamp_min(1), num_experts=self.num_experts)


FAULTS = [
    (RoundedProbabilities, 7),
    (UnnormalisedProbabilities, 7),
    (NegativeWeights, 7),
    (WeightOfTheDropped, 7),
    (TheSameExpertTwice, 7),
    (FewerExperts, 7),
    (NothingForNoTokens, 0),
]


@pytest.mark.parametrize(("fault", "tokens"), FAULTS, ids=lambda value: getattr(value, "__name__", None))
def test_a_planted_fault_is_found(fault, tokens, stage, plant):
    with pytest.raises((AssertionError, RuntimeError, IndexError)):
        check_decision(plant(fault), stage, tokens, 8)


def test_a_gate_that_autocast_reaches_is_found(stage, plant, tolerance):
    class Rounding(Faulty):
        """A gate in the dtype of autocast."""

        def forward(self, x, context):
            weight, expert = self.gate(x).float().softmax(-1).max(-1, keepdim=True)
            return SparseRouting.from_topk(expert, weight, num_experts=self.num_experts)

    with pytest.raises(AssertionError):
        check_autocast(plant(Rounding), stage, tolerance[torch.float32])


def test_an_output_that_ignores_the_weights_is_found(stage, tolerance, monkeypatch):
    monkeypatch.setattr(SparseRouting, "apply", lambda self, x, experts, context: experts(x, self, context) * 1.01)
    with pytest.raises(AssertionError):
        check_output(TopKRouter, stage, tolerance[torch.float32])

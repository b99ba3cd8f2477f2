"""BASE: balanced in training, greedy elsewhere, and experts that start as the identity."""

import jaxtyping
import pytest
import torch

from workbench.core import RouteContext
from workbench.experts.residual import ResidualExperts
from workbench.routers.base import BaseRouter

TRAIN, EVAL = RouteContext(phase="train"), RouteContext(phase="eval")
CARD = [[3.0, 1.0], [2.5, 0.0], [2.0, 1.9], [0.1, 0.0]]


@pytest.mark.parametrize("solver", ["auction", "exact"])
def test_training_is_balanced_and_the_rest_takes_the_best(decide, chosen, solver):
    assert chosen(decide(BaseRouter, CARD, TRAIN, solver=solver)) == [{0}, {0}, {1}, {1}]
    for phase in ("eval", "prefill", "decode"):
        assert chosen(decide(BaseRouter, CARD, RouteContext(phase=phase), solver=solver)) == [{0}] * 4


@pytest.mark.parametrize("context", [TRAIN, EVAL])
def test_the_weight_is_the_sigmoid_of_the_score(decide, dense_weights, assert_close, context):
    logits = torch.randn(32, 4)
    weights = dense_weights(decide(BaseRouter, logits, context))
    taken = weights > 0
    assert int(taken.sum()) == 32
    assert_close(weights[taken], logits.sigmoid()[taken])


@pytest.mark.parametrize(("tokens", "experts"), [(512, 8), (65, 8), (5, 8)])
def test_training_loads_are_even_however_uneven_the_best_choices_are(decide, tokens, experts):
    logits = torch.randn(tokens, experts) + 3 * torch.randn(experts)
    trained, greedy = (decide(BaseRouter, logits, context).counts for context in (TRAIN, EVAL))
    assert int(trained.max()) <= -(-tokens // experts) < int(greedy.max())
    assert trained.sum() == greedy.sum() == tokens


def test_a_new_layer_is_the_identity():
    router, body, x = BaseRouter(8, 4), ResidualExperts(8, 4, hidden=32), torch.randn(20, 8)
    for context in (TRAIN, EVAL):
        assert router(x, context).apply(x, body, context).abs().max() == 0
    assert abs(float(router(x, TRAIN).weight.detach().mean()) - 0.5) < 0.05


def test_the_layer_is_what_the_released_code_computes():
    # computed with the released sublayer and solver: alpha f(h) + (1 - alpha) h.
    router, body = BaseRouter(2, 2), ResidualExperts(2, 2, hidden=2)
    router.gate.weight.data = torch.tensor([[0.5, 0.1], [0.2, 0.0]])
    body.up.data = torch.tensor([[[[1.0, 0.5], [0.3, -0.7]]], [[[-0.4, 0.8], [0.6, 0.9]]]])
    body.up_bias.data = torch.tensor([[[0.1, -0.2]], [[0.3, 0.4]]])
    body.down.data = torch.tensor([[[[0.7, -0.1], [0.2, 0.5]]], [[[-0.3, 0.4], [0.8, 0.6]]]])
    body.down_bias.data = torch.tensor([[[0.05, 0.0]], [[0.0, -0.1]]])
    x = torch.tensor([[1.0, 2.0], [-1.5, 0.5], [0.3, -0.8], [2.0, 1.0]])
    # token 2 prefers expert 0 and is sent to expert 1.
    released = [
        [[1.033409, 2.000000], [-1.572344, 1.146845], [0.320601, -0.820598], [2.292598, 1.390126]],
        [[1.033409, 2.000000], [-1.572344, 1.146845], [0.501820, -0.530909], [2.292598, 1.390126]],
    ]
    for context, expected in zip((TRAIN, EVAL), released, strict=True):
        out = x + router(x, context).apply(x, body, context)
        torch.testing.assert_close(out, torch.tensor(expected), rtol=0, atol=2e-6)


def test_only_the_weight_teaches_and_only_the_chosen_experts(with_logits):
    router = with_logits(BaseRouter, 8)
    routing = router(torch.randn(3, 8), TRAIN)
    routing.weight.sum().backward()
    moved = router.gate.weight.grad.abs().sum(-1) > 0
    assert moved.tolist() == (routing.counts > 0).tolist()
    assert int(moved.sum()) == 3


@pytest.mark.parametrize("solver", ["auction", "exact"])
def test_a_ban_shares_the_tokens_among_the_others(decide, solver):
    context = TRAIN.at(bias=torch.tensor([0, -torch.inf, 0, 0]))
    assert decide(BaseRouter, torch.randn(60, 4), context, solver=solver).counts.tolist() == [20, 0, 20, 20]
    none = decide(BaseRouter, torch.randn(6, 4), TRAIN.at(bias=torch.full((4,), -torch.inf)), solver=solver)
    assert (none.counts.tolist(), none.weight.abs().max().item()) == ([0] * 4, 0)


def test_a_bias_per_expert_moves_the_greedy_choice_and_not_the_balanced_one(decide):
    logits, bias = torch.randn(64, 4), torch.tensor([9.0, 0.0, 0.0, 0.0])
    trained = [decide(BaseRouter, logits, TRAIN.at(bias=b), solver="exact").expert for b in (None, bias)]
    assert torch.equal(*trained)
    assert decide(BaseRouter, logits, EVAL.at(bias=bias)).counts.tolist() == [64, 0, 0, 0]


def test_it_reads_the_stream_and_brings_its_experts():
    router = BaseRouter(16, 4)
    assert (router.reads_stream, router.expert.name, router.loss_weights) == (True, "residual", {})
    # orthogonal rows of norm 0.1.
    torch.testing.assert_close(router.gate.weight @ router.gate.weight.t(), 0.01 * torch.eye(4), rtol=0, atol=1e-6)


def test_an_unknown_solver_is_refused():
    # the signature is checked while testing; without that the constructor refuses.
    with pytest.raises((ValueError, jaxtyping.TypeCheckError), match="auctions"):
        BaseRouter(8, 4, solver="auctions")

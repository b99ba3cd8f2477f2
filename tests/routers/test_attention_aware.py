"""Attention-aware routing: the average over the tokens that the layer's attention looks at."""

import pytest
import torch

from workbench.core import RouteContext
from workbench.routers.attention_aware import AttentionAwareRouter
from workbench.routers.top_k import TopKRouter


def with_shares(share: torch.Tensor) -> RouteContext:
    """Attention whose matrices, one for each head, the test chooses."""

    def attend(values, query=None, key=None, *, place=(0, False)):
        assert query is None
        assert key is None
        return torch.einsum("htu,um->thm", share, values), values

    return RouteContext(phase="train", attention=attend)


def causal_shares(heads: int, tokens: int) -> torch.Tensor:
    score = torch.randn(heads, tokens, tokens)
    return score.masked_fill(torch.ones(tokens, tokens).triu(1).bool(), -torch.inf).softmax(-1)


def test_the_worked_case_of_an_even_past(assert_close):
    x = torch.tensor([[0.6, 0.4], [0.9, 0.1], [0.2, 0.8]]).log()
    router = AttentionAwareRouter(2, 2, top_k=1)
    router.gate.weight.data = torch.eye(2)
    even = torch.ones(3, 3).tril()
    routing = router(x, with_shares((even / even.sum(-1, keepdim=True)).expand(4, 3, 3)))
    assert_close(routing.prob, torch.tensor([[0.6, 0.4], [0.75, 0.25], [0.566667, 0.433333]]))
    assert routing.expert.flatten().tolist() == [0, 0, 0]


@pytest.mark.parametrize("heads", ["mean", "posterior"])
def test_a_token_that_attends_only_to_itself_is_routed_as_by_top_k(heads, assert_close):
    router, x = AttentionAwareRouter(16, 8, heads=heads), torch.randn(30, 16)
    plain = TopKRouter(16, 8)
    plain.gate.load_state_dict(router.gate.state_dict())
    ours, theirs = router(x, with_shares(torch.eye(30).expand(3, 30, 30))), plain(x, RouteContext())
    assert torch.equal(ours.expert, theirs.expert)
    assert_close(ours.weight, theirs.weight)


def test_the_mean_over_heads_written_out(assert_close):
    router, x, share = AttentionAwareRouter(6, 4), torch.randn(9, 6), causal_shares(3, 9)
    expected = share.mean(0) @ (x @ router.gate.weight.t()).softmax(-1)
    assert_close(router(x, with_shares(share)).prob, expected)


def test_the_posterior_over_heads_written_out(assert_close):
    router, x, share = AttentionAwareRouter(6, 4, heads="posterior"), torch.randn(9, 6), causal_shares(3, 9)
    prob, expected = (x @ router.gate.weight.t()).softmax(-1), torch.zeros(9, 4)
    for token in range(9):
        near = torch.stack([((share[h, token] @ x - x[token]) ** 2).mean() for h in range(3)])
        for head, part in enumerate((-near / 2).softmax(-1)):
            expected[token] += part * (share[head, token] @ prob)
    assert_close(router(x, with_shares(share)).prob, expected)


def test_equal_heads_have_an_even_posterior(assert_close):
    mean, posterior = AttentionAwareRouter(6, 4), AttentionAwareRouter(6, 4, heads="posterior")
    posterior.load_state_dict(mean.state_dict())
    x, share = torch.randn(9, 6), causal_shares(1, 9).expand(3, 9, 9)
    assert_close(posterior(x, with_shares(share)).prob, mean(x, with_shares(share)).prob)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"top_k": 9}, "top_k must be between 1 and num_experts=8, got 9; use more experts or a smaller top_k"),
        ({"balance": -1}, "balance must be at least 0, got -1"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(arguments, message):
    with pytest.raises(ValueError) as error:
        AttentionAwareRouter(8, 8, **arguments)
    assert str(error.value) == message

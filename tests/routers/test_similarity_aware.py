"""Similarity-aware routing: the average over earlier tokens that resemble this one."""

import pytest
import torch

from workbench.core import RouteContext
from workbench.routers.similarity_aware import SimilarityAwareRouter
from workbench.routers.top_k import TopKRouter


def attention():
    """Causal attention in the plainest form, with the scale of attention."""

    def attend(values, query, key, *, place=(0, False)):
        score = torch.einsum("thq,uhq->htu", query, key) / query.shape[-1] ** 0.5
        past = torch.ones(len(values), len(values), dtype=torch.bool).tril()
        share = score.masked_fill(~past, -torch.inf).softmax(-1)
        return torch.einsum("htu,um->thm", share, values), torch.cat((values, key.flatten(1)), -1)

    return RouteContext(phase="train", attention=attend)


def with_share(share: list[list[float]]):
    """Attention whose matrix the test chooses."""

    def attend(values, query, key, *, place=(0, False)):
        return (torch.tensor(share) @ values).unsqueeze(1), values

    return RouteContext(phase="train", attention=attend)


def fed(prob: list[list[float]], **arguments) -> tuple[SimilarityAwareRouter, torch.Tensor]:
    """A router and tokens with these distributions before they are averaged."""
    x = torch.tensor(prob).log()
    router = SimilarityAwareRouter(x.shape[1], x.shape[1], **arguments)
    router.gate.weight.data = torch.eye(x.shape[1])
    return router, x


def test_the_worked_case_of_an_even_past(assert_close):
    router, x = fed([[0.6, 0.4], [0.9, 0.1], [0.2, 0.8]], top_k=1)
    routing = router(x, with_share([[1.0, 0, 0], [1 / 2, 1 / 2, 0], [1 / 3, 1 / 3, 1 / 3]]))
    assert_close(routing.prob, torch.tensor([[0.6, 0.4], [0.75, 0.25], [0.566667, 0.433333]]))
    assert routing.expert.flatten().tolist() == [0, 0, 0]
    assert routing.logit.argmax(-1).tolist() == [0, 0, 1]
    entropy = -(routing.prob * routing.prob.log()).sum(-1)
    torch.testing.assert_close(entropy, torch.tensor([0.673, 0.562, 0.684]), rtol=0, atol=1e-3)


def test_the_worked_case_in_which_the_entropy_falls(assert_close):
    router, x = fed([[0.99, 0.01], [0.5, 0.5]], top_k=1)
    routing = router(x, with_share([[1.0, 0.0], [0.9, 0.1]]))
    assert_close(routing.prob[1], torch.tensor([0.941, 0.059]))


def test_a_token_that_resembles_only_itself_is_routed_as_by_top_k(assert_close):
    router, x = SimilarityAwareRouter(16, 8), torch.randn(30, 16)
    plain = TopKRouter(16, 8)
    plain.gate.load_state_dict(router.gate.state_dict())
    ours, theirs = router(x, with_share(torch.eye(30).tolist())), plain(x, RouteContext())
    assert torch.equal(ours.expert, theirs.expert)
    assert_close(ours.weight, theirs.weight)


def test_the_formula_written_out(assert_close):
    router, x = SimilarityAwareRouter(6, 4, temperature=0.7), torch.randn(9, 6)
    torch.nn.init.normal_(router.similarity)
    score = (x @ router.similarity @ x.t()) / 0.7
    share = score.masked_fill(torch.ones(9, 9).triu(1).bool(), -torch.inf).softmax(-1)
    assert_close(router(x, attention()).prob, share @ (x @ router.gate.weight.t()).softmax(-1))


def test_a_small_temperature_on_unit_vectors_leaves_every_token_alone(assert_close):
    router, x = SimilarityAwareRouter(16, 4, temperature=1e-3), torch.randn(12, 16)
    x = x / x.norm(dim=-1, keepdim=True)
    routing = router(x, attention())
    assert_close(routing.prob, routing.logit.softmax(-1))


def test_averaging_never_lowers_the_average_entropy():
    router, x = SimilarityAwareRouter(16, 8, temperature=1.0), torch.randn(40, 16)
    router.gate.weight.data *= 50
    share = torch.zeros(1)

    def attend(values, query, key, *, place=(0, False)):
        nonlocal share
        score = (query[:, 0] @ key[:, 0].t() / 4).masked_fill(torch.ones(40, 40).triu(1).bool(), -torch.inf)
        share = score.softmax(-1)
        return (share @ values).unsqueeze(1), values

    routing = router(x, RouteContext(attention=attend))
    before, after = (-(p * p.clamp_min(1e-30).log()).sum(-1) for p in (routing.logit.softmax(-1), routing.prob))
    assert (after >= share @ before - 1e-5).all()


def test_a_token_hears_exactly_of_its_past():
    router, x = SimilarityAwareRouter(16, 4), torch.randn(6, 16)
    heard = torch.autograd.functional.jacobian(lambda x: router(x, attention()).prob.square().sum(-1), x)
    moved = heard.abs().amax(-1) > 0
    assert torch.equal(moved, torch.ones(6, 6, dtype=torch.bool).tril())


def test_the_temperature_is_by_default_the_root_of_the_width():
    assert SimilarityAwareRouter(64, 8).temperature == 8


def test_without_attention_it_says_what_is_missing():
    with pytest.raises(ValueError, match="this router reads attention, and there is none here"):
        SimilarityAwareRouter(8, 4)(torch.randn(2, 8), RouteContext())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"top_k": 9}, "top_k must be between 1 and num_experts=8, got 9; use more experts or a smaller top_k"),
        ({"temperature": 0}, "temperature must be at least 1e-06, got 0"),
        ({"balance": -1}, "balance must be at least 0, got -1"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(arguments, message):
    with pytest.raises(ValueError) as error:
        SimilarityAwareRouter(8, 8, **arguments)
    assert str(error.value) == message

"""Soft MoE: slots mix the tokens of their sequence, tokens mix the slots."""

import pytest
import torch
from torch import Tensor

from workbench.core import RouteContext
from workbench.experts.mlp import MLPExperts
from workbench.routers.soft import SoftRouter


def two(*lengths: int) -> RouteContext:
    sequence = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    return RouteContext(sequence=sequence, position=torch.cat([torch.arange(n) for n in lengths]))


def body_of(num_experts: int) -> MLPExperts:
    body = MLPExperts(6, num_experts, hidden=5)
    for parameter in body.parameters():
        torch.nn.init.normal_(parameter)
    return body


def by_formula(router: SoftRouter, body: MLPExperts, x: Tensor) -> Tensor:
    """One sequence as the paper writes it: logits, two softmaxes, experts on slots."""
    phi = torch.nn.functional.normalize(router.mixer, dim=0) * router.scale
    logits = torch.einsum("md,dnp->mnp", torch.nn.functional.normalize(x, dim=-1), phi)
    slots = torch.einsum("mnp,md->npd", logits.softmax(0), x)
    gate, up = torch.einsum("npd,nfd->npf", slots, body.gate_up).chunk(2, dim=-1)
    outs = torch.einsum("npf,ndf->npd", torch.nn.functional.silu(gate) * up, body.down)
    return torch.einsum("mnp,npd->md", logits.flatten(1).softmax(-1).view_as(logits), outs)


def test_it_is_the_formula_of_the_paper_and_so_are_its_gradients(assert_close):
    router, body, x = SoftRouter(6, 3, slots=2), body_of(3), torch.randn(7, 6)
    router.scale.data.fill_(3.0)
    ours, expected = router(x, two(7)).apply(x, body, RouteContext()), by_formula(router, body, x)
    assert_close(ours, expected)
    leaves = (*router.parameters(), *body.parameters())
    for mine, theirs in zip(*(torch.autograd.grad(y.square().sum(), leaves) for y in (ours, expected)), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-3)


def test_the_mixtures_are_those_of_the_released_router():
    # computed with its formulas in numpy: two tokens, two experts of one slot, a scale of 2.
    router = SoftRouter(2, 2, slots=1)
    router.scale.data.fill_(2.0)
    router.mixer.data = torch.tensor([[[3.0], [0.0]], [[4.0], [-2.0]]])
    routing = router(torch.tensor([[1.0, 0.0], [1.0, 1.0]]), RouteContext())
    torch.testing.assert_close(
        routing.dispatch.squeeze(-1), torch.tensor([[0.314342, 0.80443], [0.685658, 0.19557]]), rtol=0, atol=2e-6
    )
    torch.testing.assert_close(
        routing.combine.squeeze(-1), torch.tensor([[0.768525, 0.231475], [0.96752, 0.03248]]), rtol=0, atol=2e-6
    )


def test_each_sequence_is_mixed_as_if_it_were_alone(assert_close):
    router, body, x = SoftRouter(6, 3, slots=2), body_of(3), torch.randn(12, 6)
    together = router(x, two(7, 1, 4)).apply(x, body, RouteContext())
    apart = [router(part, two(len(part))).apply(part, body, RouteContext()) for part in x.split([7, 1, 4])]
    assert_close(together, torch.cat(apart))
    assert router(x, two(7, 1, 4)).demand.tolist() == [3 * 2] * 3


def test_shares_sum_to_one_over_the_tokens_and_over_the_slots(assert_close):
    routing = SoftRouter(6, 3, slots=2)(torch.randn(12, 6), two(7, 5))
    assert_close(routing.dispatch.sum(0), torch.ones(3, 4))
    assert_close(routing.combine.sum((1, 2)), torch.ones(12))
    # no token has a part in another sequence's slots.
    foreign = routing.dispatch.unflatten(-1, (2, 2))
    assert foreign[:7, :, 1].abs().max() == foreign[7:, :, 0].abs().max() == 0


def test_the_length_of_a_token_or_a_slot_vector_does_not_matter(assert_close):
    router, x = SoftRouter(6, 3), torch.randn(9, 6)
    before = router(x, two(9)).combine
    assert_close(router(x * 50, two(9)).combine, before)
    router.mixer.data *= 50
    torch.testing.assert_close(router(x, two(9)).combine, before, rtol=1e-4, atol=1e-5)


def test_large_scales_do_not_overflow():
    router = SoftRouter(6, 3)
    router.scale.data.fill_(1e4)
    routing = router(torch.randn(9, 6), two(5, 4))
    assert routing.dispatch.isfinite().all()
    assert routing.combine.isfinite().all()


def test_without_sequences_all_tokens_are_one(assert_close):
    router, x = SoftRouter(6, 3), torch.randn(9, 6)
    assert_close(router(x, RouteContext()).dispatch, router(x, two(9)).dispatch)


def test_an_expert_without_slots_is_refused():
    with pytest.raises(ValueError, match=r"^slots must be at least 1, got 0$"):
        SoftRouter(6, 3, slots=0)

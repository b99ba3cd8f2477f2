"""Slot and merged routings: worked by hand, then against loops, with every gradient."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from workbench.core import MergedRouting, RouteContext, RowExperts, SlotRouting, SparseRouting
from workbench.experts.mlp import MLPExperts


class Affine(RowExperts):
    """Expert e maps a row to tanh(row * scale[e]) + shift[e]: not linear, so averaging parameters shows."""

    def __init__(self, scale: torch.Tensor, shift: torch.Tensor):
        super().__init__(len(scale))
        self.scale, self.shift = nn.Parameter(scale), nn.Parameter(shift)
        self.contexts, self.plans = [], []

    def tensors(self):
        return self.scale, self.shift

    def rows(self, tensors, rows, counts):
        scale, shift = (t.repeat_interleave(counts, dim=0) for t in tensors)
        return (rows * scale).tanh() + shift

    def one(self, row: torch.Tensor, scale: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
        return (row * scale).tanh() + shift


def affine(experts: int, width: int, *, dtype=torch.float64) -> Affine:
    generator = torch.Generator().manual_seed(experts * 31 + width)
    return Affine(*torch.randn(2, experts, width, generator=generator, dtype=dtype).unbind())


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()


def slot_loop(dispatch, combine, x, experts: Affine) -> torch.Tensor:
    """The same, one slot and one token at a time."""
    out = []
    for t in range(len(x)):
        total = torch.zeros_like(x[t])
        for e in range(dispatch.shape[1]):
            for c in range(dispatch.shape[2]):
                slot = sum(dispatch[u, e, c] * x[u] for u in range(len(x)))
                total = total + combine[t, e, c] * experts.one(slot, experts.scale[e], experts.shift[e])
        out.append(total)
    return torch.stack(out)


def merged_loop(mixture, group, x, experts: Affine) -> torch.Tensor:
    """The same, one token at a time."""
    out = []
    for t in range(len(x)):
        share = mixture[group[t]]
        scale = sum(share[e] * experts.scale[e] for e in range(len(share)))
        shift = sum(share[e] * experts.shift[e] for e in range(len(share)))
        out.append(experts.one(x[t], scale, shift))
    return torch.stack(out)


def compare_with_gradients(ours: torch.Tensor, expected: torch.Tensor, leaves: tuple[torch.Tensor, ...]) -> None:
    """Equal values, and equal gradients to every leaf."""
    torch.testing.assert_close(ours, expected)
    grad = torch.linspace(-1, 1, ours.numel(), dtype=ours.dtype).view_as(ours)
    got = torch.autograd.grad(ours, leaves, grad)
    for mine, theirs in zip(got, torch.autograd.grad(expected, leaves, grad), strict=True):
        torch.testing.assert_close(mine, theirs)


@settings(max_examples=20)
@given(st.integers(1, 5), st.integers(1, 3), st.integers(1, 3))
def test_slots_agree_with_a_loop(tokens, experts, slots):
    dispatch, combine = draw(tokens, experts, slots), draw(tokens, experts, slots, seed=1)
    x, body = draw(tokens, 4, seed=2), affine(experts, 4)
    routing = SlotRouting(num_experts=experts, dispatch=dispatch, combine=combine)
    ours = routing.apply(x, body, RouteContext())
    leaves = (x, dispatch, combine, body.scale, body.shift)
    compare_with_gradients(ours, slot_loop(dispatch, combine, x, body), leaves)


@settings(max_examples=30)
@given(st.lists(st.integers(0, 2), min_size=1, max_size=6), st.integers(1, 3))
def test_merged_experts_agree_with_a_loop(group, experts):
    mixture, x = draw(3, experts), draw(len(group), 4, seed=2)
    body, member = affine(experts, 4), torch.tensor(group)
    routing = MergedRouting(num_experts=experts, mixture=mixture, group=member)
    ours = routing.apply(x, body, RouteContext())
    compare_with_gradients(ours, merged_loop(mixture, member, x, body), (x, mixture, body.scale, body.shift))


def test_one_slot_that_is_one_token_is_that_token_s_expert():
    dispatch = torch.tensor([[[1.0]], [[0.0]]])
    combine = torch.tensor([[[0.0]], [[2.0]]])
    body = Affine(torch.tensor([[1.0]]), torch.tensor([[5.0]]))
    out = SlotRouting(num_experts=1, dispatch=dispatch, combine=combine).apply(
        torch.tensor([[0.0], [9.0]]), body, RouteContext()
    )
    # the slot is token 0, and token 1 alone reads it: 2 * (tanh(0) + 5).
    assert out.tolist() == [[0.0], [10.0]]


def test_slots_are_all_asked_for_and_all_computed():
    routing = SlotRouting(num_experts=3, dispatch=torch.zeros(5, 3, 2), combine=torch.zeros(5, 3, 2))
    assert routing.demand.tolist() == routing.counts.tolist() == [2, 2, 2]
    assert routing.num_tokens == 5


def test_the_assignments_of_slots_are_summed_combine_weights():
    combine = torch.tensor([[[0.1, 0.2], [0.3, 0.4]]])
    flat = SlotRouting(num_experts=2, dispatch=combine, combine=combine).assignments()
    assert (flat.token.tolist(), flat.expert.tolist(), flat.kept.tolist()) == ([0, 0], [0, 1], [True, True])
    torch.testing.assert_close(flat.weight, torch.tensor([0.3, 0.7]))


def test_the_experts_of_slots_see_no_tokens():
    class Spy(Affine):
        def forward(self, x, plan, context):
            self.contexts.append(context)
            self.plans.append(plan)
            return x

    body = Spy(torch.ones(2, 3), torch.zeros(2, 3))
    context = RouteContext(layer=4, token_id=torch.arange(5), position=torch.arange(5), sequence=torch.arange(5))
    weights = torch.zeros(5, 2, 2)
    SlotRouting(num_experts=2, dispatch=weights, combine=weights).apply(torch.ones(5, 3), body, context)
    assert (body.contexts[0].token_id, body.contexts[0].position, body.contexts[0].layer) == (None, None, 4)
    assert body.plans[0].order.tolist() == [0, 1, 2, 3]
    assert body.plans[0].counts.tolist() == [2, 2]


def test_a_merged_expert_averages_parameters_and_not_outputs():
    body = Affine(torch.tensor([[0.0], [2.0]]), torch.tensor([[0.0], [0.0]]))
    routing = MergedRouting(num_experts=2, mixture=torch.tensor([[0.5, 0.5]]), group=torch.tensor([0]))
    out = routing.apply(torch.tensor([[1.0]]), body, RouteContext())
    torch.testing.assert_close(out, torch.tensor([[1.0]]).tanh())
    assert abs(float(out.detach()) - float(torch.tensor(2.0).tanh()) / 2) > 0.2


def test_a_merged_expert_counts_for_its_largest_share():
    mixture = torch.tensor([[0.2, 0.8], [0.9, 0.1]])
    routing = MergedRouting(num_experts=2, mixture=mixture, group=torch.tensor([0, 0, 1]))
    assert routing.demand.tolist() == routing.counts.tolist() == [1, 2]
    flat = routing.assignments()
    assert (flat.token.tolist(), flat.expert.tolist()) == ([0, 0, 1, 1, 2, 2], [0, 1] * 3)
    torch.testing.assert_close(flat.weight, torch.tensor([0.2, 0.8, 0.2, 0.8, 0.9, 0.1]))


@pytest.mark.parametrize("tokens", [0, 1])
@pytest.mark.parametrize("may_learn", [True, False])
def test_few_tokens_are_no_special_case(tokens, may_learn):
    x, body = draw(tokens, 4), affine(2, 4)
    dispatch = draw(tokens, 2, 3, seed=1)
    merged = MergedRouting(num_experts=2, mixture=draw(1, 2), group=torch.zeros(tokens, dtype=torch.long))
    slots = SlotRouting(num_experts=2, dispatch=dispatch, combine=dispatch)
    for routing in (merged, slots):
        with torch.set_grad_enabled(may_learn):
            out = routing.apply(x, body, RouteContext())
        assert out.shape == (tokens, 4)
        assert out.isfinite().all()
        assert len(routing.assignments().token) == 2 * tokens


@pytest.mark.parametrize("kind", ["slots", "merged"])
def test_autocast_reaches_the_mixtures_too(kind, assert_close):
    x = draw(6, 8).detach().float()
    weights = draw(6, 2, 2, seed=1).detach().float().softmax(0)
    routing = {
        "slots": SlotRouting(num_experts=2, dispatch=weights, combine=weights),
        "merged": MergedRouting(num_experts=2, mixture=weights[:3, :, 0], group=torch.tensor([0, 1, 2, 0, 1, 1])),
    }[kind]
    body = MLPExperts(8, 2, hidden=12)
    for parameter in body.parameters():
        nn.init.normal_(parameter, std=0.3)
    exact = routing.apply(x, body, RouteContext())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        close = routing.apply(x, body, RouteContext())
    assert close.dtype == torch.bfloat16
    assert_close(close.float(), exact, dtype=torch.bfloat16)


def test_the_rows_of_slots_are_a_sparse_plan_of_their_own():
    plan = SparseRouting.identity(
        SlotRouting(num_experts=2, dispatch=torch.zeros(1, 2, 3), combine=torch.zeros(1, 2, 3)).demand
    )
    assert (plan.num_tokens, plan.weight.unique().tolist()) == (6, [1.0])

"""Sparse routings against the plainest reading of the same decision: a dense matrix of weights."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.core import SparseRouting


@st.composite
def plans(draw, may_drop: bool = True) -> SparseRouting:
    """Any legal plan: empty slots, drops, experts without rows, repeated experts."""
    experts = draw(st.integers(1, 5))
    tokens, width = draw(st.integers(0, 7)), draw(st.integers(0 if may_drop else 1, 5))
    drops = may_drop and draw(st.booleans())
    lowest = -1 if drops else 0
    cells = st.lists(st.integers(lowest, experts - 1), min_size=tokens * width, max_size=tokens * width)
    expert = torch.tensor(draw(cells), dtype=torch.long).view(tokens, width)
    seed = draw(st.integers(0, 2**16))
    generator = torch.Generator().manual_seed(seed)
    weight = torch.rand(tokens, width, generator=generator)
    keep = (expert >= 0) & (torch.rand(tokens, width, generator=generator) < 0.7) if drops else None
    return SparseRouting.from_topk(expert, weight, keep=keep, num_experts=experts)


def kept_slots(plan: SparseRouting) -> list[tuple[int, int, int]]:
    """(expert, token, choice) of every slot that is computed."""
    kept = torch.ones_like(plan.expert, dtype=torch.bool) if plan.kept is None else plan.kept
    cells = [(t, k) for t in range(plan.num_tokens) for k in range(plan.top_k) if kept[t, k]]
    return [(int(plan.expert[t, k]), t, k) for t, k in cells]


def matrix(plan: SparseRouting, weight: torch.Tensor | None = None) -> torch.Tensor:
    """Weight of every expert in every token, zero where the assignment is dropped; slow and plain."""
    weight = plan.weight if weight is None else weight
    dense = weight.new_zeros(plan.num_tokens, plan.num_experts)
    for e, t, k in kept_slots(plan):
        dense = dense.index_put((torch.tensor(t), torch.tensor(e)), weight[t, k], accumulate=True)
    return dense


@given(plans())
def test_order_is_sorted_by_expert_and_then_by_slot(plan):
    expected = [t * plan.top_k + k for _, t, k in sorted(kept_slots(plan))]
    assert plan.order.tolist() == expected
    assert plan.rows.tolist() == [t for _, t, _ in sorted(kept_slots(plan))]


@given(plans())
def test_row_of_is_the_inverse_of_order(plan):
    flat = plan.row_of.flatten()
    assert torch.equal(flat[plan.order], torch.arange(plan.order.numel()))
    assert int((flat >= 0).sum()) == plan.order.numel()


@given(plans())
def test_demand_and_counts_are_those_of_a_loop(plan):
    asked, kept = plan.expert[plan.expert >= 0].tolist(), [e for e, _, _ in kept_slots(plan)]
    assert plan.demand.tolist() == [asked.count(e) for e in range(plan.num_experts)]
    assert plan.counts.tolist() == [kept.count(e) for e in range(plan.num_experts)]


@given(plans())
def test_assignments_keep_every_ask_in_token_order(plan):
    flat = plan.assignments()
    cells = [(t, k) for t in range(plan.num_tokens) for k in range(plan.top_k) if plan.expert[t, k] >= 0]
    assert flat.token.tolist() == [t for t, _ in cells]
    assert flat.expert.tolist() == [int(plan.expert[t, k]) for t, k in cells]
    assert flat.weight.tolist() == [float(plan.weight[t, k]) for t, k in cells]
    assert flat.kept.tolist() == [plan.kept is None or bool(plan.kept[t, k]) for t, k in cells]


@given(plans(), st.data())
def test_a_pick_is_the_plan_of_those_experts_alone(plan, data):
    chosen = data.draw(st.permutations(range(plan.num_experts)))[: data.draw(st.integers(0, plan.num_experts))]
    part = plan.pick(torch.tensor(chosen, dtype=torch.long))
    torch.testing.assert_close(matrix(part), matrix(plan)[:, chosen], rtol=0, atol=0)
    assert part.counts.tolist() == plan.counts[chosen].tolist()
    fresh = SparseRouting(expert=part.expert, weight=part.weight, kept=part.kept, num_experts=len(chosen))
    assert part.order.tolist() == fresh.order.tolist()
    assert part.row_of.tolist() == fresh.row_of.tolist()


@given(plans(), st.data())
def test_a_pick_of_a_pick_is_a_pick(plan, data):
    first = data.draw(st.permutations(range(plan.num_experts)))
    second = data.draw(st.permutations(range(plan.num_experts)))
    twice = plan.pick(torch.tensor(first)).pick(torch.tensor(second))
    once = plan.pick(torch.tensor(first)[torch.tensor(second)])
    assert twice.order.tolist() == once.order.tolist()
    assert twice.expert.tolist() == once.expert.tolist()


@given(plans(), st.data())
def test_slices_cover_the_plan(plan, data):
    cut = data.draw(st.integers(0, plan.num_experts))
    low, high = plan.slice(0, cut), plan.slice(cut, plan.num_experts)
    assert torch.cat((low.order, high.order)).tolist() == plan.order.tolist()


@settings(max_examples=60)
@given(plans(), st.booleans())
def test_dispatch_and_combine_are_the_dense_product_with_its_gradients(plan, is_transposed):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(plan.num_tokens, 3, generator=generator, dtype=torch.float64)
    x = x.t().contiguous().t() if is_transposed else x
    x.requires_grad_()
    scale = torch.randn(plan.num_experts, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    weight = plan.weight.double().requires_grad_()
    # the same plan with weights that learn: combine casts the weights to the rows' dtype.
    learning = SparseRouting(expert=plan.expert, weight=weight, kept=plan.kept, num_experts=plan.num_experts)
    rows, counts = learning.dispatch(x)
    ours = learning.combine(rows * scale.repeat_interleave(counts, dim=0))
    dense = torch.einsum("te,ed,td->td", matrix(plan, weight), scale, x)
    torch.testing.assert_close(ours, dense)
    grad = torch.randn(ours.shape, generator=generator, dtype=torch.float64)
    leaves = (x, scale, weight)
    for got, expected in zip(
        torch.autograd.grad(ours, leaves, grad, retain_graph=True),
        torch.autograd.grad(dense, leaves, grad, allow_unused=True, materialize_grads=True),
        strict=True,
    ):
        torch.testing.assert_close(got, expected)


@st.composite
def masks(draw) -> tuple[torch.Tensor, torch.Tensor]:
    tokens, experts = draw(st.integers(0, 6)), draw(st.integers(1, 5))
    cells = draw(st.lists(st.booleans(), min_size=tokens * experts, max_size=tokens * experts))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))
    mask = torch.tensor(cells, dtype=torch.bool).view(tokens, experts)
    return mask, torch.rand(tokens, experts, generator=generator)


@given(masks())
def test_from_mask_is_the_masked_matrix(case):
    mask, weight = case
    plan = SparseRouting.from_mask(mask, weight)
    assert torch.equal(matrix(plan), weight * mask)
    assert plan.demand.tolist() == mask.sum(0).tolist()
    assert plan.top_k == (int(mask.sum(-1).max()) if len(mask) else 0)


@given(st.integers(1, 6), st.integers(1, 5), st.data())
def test_from_expert_choice_is_the_scattered_matrix(tokens, experts, data):
    slots = data.draw(st.integers(0, tokens))
    columns = [data.draw(st.permutations(range(tokens)))[:slots] for _ in range(experts)]
    token = torch.tensor(columns, dtype=torch.long).view(experts, slots)
    generator = torch.Generator().manual_seed(2)
    weight = torch.rand(experts, slots, generator=generator)
    keep = torch.rand(experts, slots, generator=generator) < data.draw(st.sampled_from([0.0, 0.5, 2.0]))
    plan = SparseRouting.from_expert_choice(token, weight, num_tokens=tokens, keep=keep)
    expected = torch.zeros(experts, tokens).scatter(1, token, weight * keep).t()
    assert torch.equal(matrix(plan), expected)
    assert plan.demand.tolist() == [slots] * experts
    assert plan.counts.tolist() == keep.sum(1).tolist()


@given(st.lists(st.integers(0, 4), min_size=1, max_size=5))
def test_identity_agrees_with_sorting(counts):
    plan = SparseRouting.identity(torch.tensor(counts))
    fresh = SparseRouting(expert=plan.expert, weight=plan.weight, num_experts=len(counts))
    assert plan.order.tolist() == fresh.order.tolist()
    assert plan.counts.tolist() == counts


@pytest.mark.parametrize("build", ["topk", "mask", "expert_choice"])
def test_the_three_constructors_say_the_same_decision(build):
    # every expert takes two tokens and every token two experts: the one shape all three can say.
    mask = torch.tensor([[1, 1, 0], [0, 1, 1], [1, 0, 1]], dtype=torch.bool)
    weight = torch.arange(1.0, 10.0).view(3, 3)
    chosen = mask.nonzero()[:, 1].view(3, 2)
    token = mask.t().nonzero()[:, 1].view(3, 2)
    plan = {
        "topk": lambda: SparseRouting.from_topk(chosen, weight.gather(1, chosen), num_experts=3),
        "mask": lambda: SparseRouting.from_mask(mask, weight),
        "expert_choice": lambda: SparseRouting.from_expert_choice(token, weight.t().gather(1, token), num_tokens=3),
    }[build]()
    assert torch.equal(matrix(plan), weight * mask)
    assert plan.order.tolist() == [0, 4, 1, 2, 3, 5]


def test_gradients_reach_the_weights_of_all_constructors():
    mask = torch.tensor([[True, False], [True, True]])
    weight = torch.rand(2, 2, requires_grad=True)
    SparseRouting.from_mask(mask, weight).weight.sum().backward()
    assert torch.equal(weight.grad, mask.float())
    columns = torch.rand(2, 1, requires_grad=True)
    SparseRouting.from_expert_choice(torch.tensor([[1], [0]]), columns, num_tokens=2).weight.sum().backward()
    assert torch.equal(columns.grad, torch.ones(2, 1))

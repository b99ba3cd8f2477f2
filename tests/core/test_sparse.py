"""Sparse routings worked by hand: what every view of the decision says of six assignments."""

import pytest
import torch

from workbench.core import RouteContext, SparseRouting

# Three tokens, two slots, three experts. Token 1's first choice is lost to capacity, token 2 asks once only.
EXPERT = [[1, 0], [1, 2], [0, -1]]
WEIGHT = [[0.75, 0.25], [0.0, 0.4], [1.0, 0.0]]
KEPT = [[True, True], [False, True], [True, False]]


@pytest.fixture
def plan() -> SparseRouting:
    return SparseRouting.from_topk(torch.tensor(EXPERT), torch.tensor(WEIGHT), keep=torch.tensor(KEPT), num_experts=3)


def test_demand_counts_what_was_asked_and_counts_what_is_computed(plan):
    assert plan.demand.tolist() == [2, 2, 1]
    assert plan.counts.tolist() == [2, 1, 1]


def test_rows_lie_by_expert_and_then_by_token(plan):
    assert plan.order.tolist() == [1, 4, 0, 3]
    assert plan.rows.tolist() == [0, 2, 0, 1]
    assert plan.row_of.tolist() == [[2, 0], [-1, 3], [1, -1]]


def test_dispatch_gives_each_row_its_token(plan):
    rows, counts = plan.dispatch(torch.tensor([[1.0], [2.0], [3.0]]))
    assert rows.flatten().tolist() == [1, 3, 1, 2]
    assert counts.tolist() == [2, 1, 1]


def test_combine_adds_the_weighted_rows_of_each_token(plan):
    combined = plan.combine(torch.tensor([[8.0], [5.0], [4.0], [10.0]]))
    assert combined.flatten().tolist() == [0.25 * 8 + 0.75 * 4, 0.4 * 10, 5]


def test_assignments_hold_the_dropped_one_and_not_the_empty_slot(plan):
    flat = plan.assignments()
    assert flat.token.tolist() == [0, 0, 1, 1, 2]
    assert flat.expert.tolist() == [1, 0, 1, 2, 0]
    assert flat.kept.tolist() == [True, True, False, True, True]
    torch.testing.assert_close(flat.weight, torch.tensor([0.75, 0.25, 0.0, 0.4, 1.0]))


def test_a_pick_renumbers_experts_in_the_order_given(plan):
    part = plan.pick(torch.tensor([2, 0]))
    assert part.num_experts == 2
    assert part.counts.tolist() == [1, 2]
    assert part.expert.tolist() == [[-1, 1], [-1, 0], [1, -1]]
    assert part.rows.tolist() == [1, 0, 2]


def test_a_slice_is_the_pick_of_a_range(plan):
    part = plan.slice(1, 3)
    assert part.counts.tolist() == [1, 1]
    assert part.rows.tolist() == [0, 1]


def test_a_pick_of_nothing_has_no_rows(plan):
    part = plan.pick(torch.tensor([], dtype=torch.long))
    assert (part.num_experts, part.num_tokens, part.rows.tolist()) == (0, 3, [])


def test_the_plan_of_the_kernels_is_made_once_and_says_the_same(plan):
    assert plan.plan is plan.plan
    assert plan.plan.rows.tolist() == [0, 2, 0, 1, 0, 0]
    assert plan.plan.offsets.tolist() == [0, 2, 3, 4]
    assert plan.plan.row_of.tolist() == plan.row_of.tolist()


def test_from_mask_asks_for_the_lowest_index_first():
    mask = torch.tensor([[False, True, True], [False, False, False], [True, False, False]])
    weight = torch.tensor([[9.0, 0.1, 0.2], [9.0, 9.0, 9.0], [0.3, 9.0, 9.0]])
    plan = SparseRouting.from_mask(mask, weight)
    assert plan.expert.tolist() == [[1, 2], [-1, -1], [0, -1]]
    assert plan.demand.tolist() == [1, 1, 1]
    torch.testing.assert_close(plan.weight, torch.tensor([[0.1, 0.2], [0.0, 0.0], [0.3, 0.0]]))


def test_from_mask_ignores_what_an_unchosen_weight_holds():
    weight = torch.tensor([[0.1, 0.2], [0.3, -torch.inf], [torch.nan, 0.4]], requires_grad=True)
    plan = SparseRouting.from_mask(torch.tensor([[True, True], [True, False], [False, True]]), weight)
    torch.testing.assert_close(plan.weight, torch.tensor([[0.1, 0.2], [0.3, 0.0], [0.4, 0.0]]))
    plan.weight.sum().backward()
    assert weight.grad.tolist() == [[1, 1], [1, 0], [0, 1]]


def test_from_expert_choice_turns_columns_into_rows():
    token = torch.tensor([[2, 0], [2, 1]])
    plan = SparseRouting.from_expert_choice(token, torch.tensor([[0.9, 0.1], [0.8, 0.2]]), num_tokens=4)
    assert plan.expert.tolist() == [[0, -1], [1, -1], [0, 1], [-1, -1]]
    assert plan.counts.tolist() == [2, 2]
    torch.testing.assert_close(plan.weight, torch.tensor([[0.1, 0.0], [0.2, 0.0], [0.9, 0.8], [0.0, 0.0]]))


def test_from_expert_choice_may_lose_a_choice():
    token, weight = torch.tensor([[0], [0]]), torch.tensor([[0.5], [0.5]])
    plan = SparseRouting.from_expert_choice(token, weight, num_tokens=1, keep=torch.tensor([[True], [False]]))
    assert plan.demand.tolist() == [1, 1]
    assert plan.counts.tolist() == [1, 0]


def test_identity_leaves_rows_where_they_lie():
    plan = SparseRouting.identity(torch.tensor([2, 0, 1]))
    assert plan.expert.flatten().tolist() == [0, 0, 2]
    rows, counts = plan.dispatch(torch.tensor([[1.0], [2.0], [3.0]]))
    assert (rows.flatten().tolist(), counts.tolist()) == ([1, 2, 3], [2, 0, 1])
    assert plan.combine(rows).flatten().tolist() == [1, 2, 3]


def test_identity_of_no_rows_is_empty():
    plan = SparseRouting.identity(torch.tensor([0, 0]))
    assert (plan.num_tokens, plan.counts.tolist(), plan.order.tolist()) == (0, [0, 0], [])


@pytest.mark.parametrize("keep", [None, True])
def test_no_tokens_make_no_rows(keep):
    kept = None if keep is None else torch.zeros(0, 2, dtype=torch.bool)
    plan = SparseRouting.from_topk(torch.zeros(0, 2, dtype=torch.long), torch.zeros(0, 2), keep=kept, num_experts=3)
    rows, counts = plan.dispatch(torch.zeros(0, 5))
    assert (rows.shape, counts.tolist(), plan.demand.tolist()) == ((0, 5), [0, 0, 0], [0, 0, 0])
    assert plan.combine(rows).shape == (0, 5)
    assert plan.row_of.shape == (0, 2)
    assert len(plan.assignments().token) == 0


def test_when_all_are_dropped_the_output_is_zero_and_so_is_the_gradient():
    x = torch.ones(3, 2, requires_grad=True)
    weight = torch.ones(3, 1, requires_grad=True)
    keep = torch.zeros(3, 1, dtype=torch.bool)
    plan = SparseRouting.from_topk(torch.zeros(3, 1, dtype=torch.long), weight, keep=keep, num_experts=2)
    out = plan.combine(plan.dispatch(x)[0])
    out.sum().backward()
    assert out.tolist() == [[0, 0]] * 3
    assert x.grad.tolist() == [[0, 0]] * 3
    assert weight.grad.tolist() == [[0]] * 3


def test_tokens_without_any_slot_give_zero():
    plan = SparseRouting.from_mask(torch.zeros(2, 3, dtype=torch.bool), torch.zeros(2, 3))
    assert plan.top_k == 0
    assert plan.combine(plan.dispatch(torch.ones(2, 4))[0]).tolist() == [[0] * 4] * 2
    assert plan.pick(torch.tensor([1])).counts.tolist() == [0]


def test_weights_become_float32():
    half = SparseRouting.from_topk(torch.tensor([[0]]), torch.ones(1, 1, dtype=torch.bfloat16), num_experts=1)
    assert half.weight.dtype == torch.float32
    mask = SparseRouting.from_mask(torch.ones(1, 1, dtype=torch.bool), torch.ones(1, 1, dtype=torch.float64))
    assert mask.weight.dtype == torch.float32
    token = torch.zeros(1, 1, dtype=torch.long)
    assert SparseRouting.from_expert_choice(token, mask.weight.double(), num_tokens=1).weight.dtype == torch.float32


def test_apply_hands_the_whole_plan_to_the_experts(plan):
    seen = []

    class Spy(torch.nn.Module):
        def tensors(self):
            return ()

        def run(self, tensors, x, plan, context):
            raise AssertionError

        def forward(self, x, plan, context):
            seen.append((plan, context))
            return x * 2

    x, context = torch.ones(3, 4), RouteContext()
    assert torch.equal(plan.apply(x, Spy(), context), 2 * x)
    assert seen == [(plan, context)]


def test_experts_get_new_numbers_and_the_others_fall_away(plan):
    part = plan.renumber(torch.tensor([2, 0]), torch.tensor([1, 4]), num_experts=6)
    assert part.expert.tolist() == [[-1, 4], [-1, 1], [4, -1]]
    assert part.kept.tolist() == [[False, True], [False, True], [True, False]]
    assert (part.num_experts, part.counts.tolist()) == (6, [0, 1, 0, 0, 2, 0])
    assert part.weight is plan.weight


def test_a_whole_renumbering_keeps_what_was_kept(plan):
    part = plan.renumber(torch.tensor([0, 1, 2]), torch.tensor([5, 0, 3]), num_experts=6, is_whole=True)
    assert part.expert.tolist() == [[0, 5], [0, 3], [5, -1]]
    assert part.kept is plan.kept
    assert part.counts.tolist() == [1, 0, 0, 1, 0, 2]
    every = SparseRouting.from_topk(torch.tensor([[0, 1]]), torch.ones(1, 2), num_experts=2)
    assert every.renumber(torch.tensor([0, 1]), torch.tensor([1, 0]), num_experts=2, is_whole=True).kept is None
    assert every.renumber(torch.tensor([0]), torch.tensor([1]), num_experts=2).kept.tolist() == [[True, False]]

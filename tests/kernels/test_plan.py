"""Plans: by hand, against the loops of the reference, and at their limits."""

import pytest
import torch
from workbench_kernels import RoutingPlan, offsets_of, plan_from_groups, plan_from_mask, plan_routing
from workbench_kernels.plan import LIMIT
from workbench_kernels.reference import plan_ref


def same(plan: RoutingPlan, expected: RoutingPlan) -> bool:
    names = ("rows", "row_of", "offsets")
    return all(torch.equal(vars(plan)[name], vars(expected)[name]) for name in names)


def test_six_slots_by_hand(engine):
    # expert 1 of token 0, both of token 1, none of token 2.
    plan = plan_routing(torch.tensor([[1, -1], [1, 0], [-1, 5]]), 3)
    assert plan.rows.tolist() == [1, 0, 1, 0, 0, 0]
    assert plan.row_of.tolist() == [[1, -1], [2, 0], [-1, -1]]
    assert plan.offsets.tolist() == [0, 1, 3, 3]
    assert plan.counts.tolist() == [1, 2, 0]
    assert (plan.num_experts, plan.num_tokens, plan.top_k, plan.num_rows) == (3, 3, 2, 6)


def test_every_case_is_that_of_the_loops(engine, case):
    plan = plan_routing(case.expert, case.num_experts)
    assert same(plan, case.plan)
    assert {part.dtype for part in (plan.rows, plan.row_of, plan.offsets)} == {torch.int32}


@pytest.mark.parametrize("experts", [1, 7, 200])
def test_a_larger_choice_is_that_of_the_loops(engine, experts):
    expert = torch.randint(-1, experts + 2, (301, 3), generator=torch.Generator().manual_seed(1))
    assert same(plan_routing(expert, experts), plan_ref(expert, experts))
    assert same(plan_routing(expert.t().contiguous().t(), experts), plan_ref(expert, experts))


def test_no_experts_have_no_rows(engine):
    plan = plan_routing(torch.zeros(2, 2, dtype=torch.long), 0)
    assert (plan.offsets.tolist(), plan.row_of.unique().tolist()) == ([0], [-1])
    assert plan.tiles(4)[0].numel() == 0


def test_a_mask_has_a_slot_for_each_expert():
    mask = torch.tensor([[True, False, True], [False, False, False], [False, True, True]])
    plan = plan_from_mask(mask)
    assert plan.row_of.tolist() == [[0, -1, 2], [-1, -1, -1], [-1, 1, 3]]
    assert plan.rows[:4].tolist() == [0, 2, 0, 2]


def test_groups_name_their_tokens_in_any_order():
    plan = plan_from_groups(torch.tensor([[2, 0], [1, -1], [7, 0]]), 3)
    assert same(plan, plan_from_mask(torch.tensor([[True, False, True], [False, True, False], [True, False, False]])))


@pytest.mark.parametrize("block", [1, 2, 3, 64])
def test_tiles_cover_every_row_once(case, block):
    plan = case.plan
    expert, row = plan.tiles(block)
    assert len(expert) == -(-plan.num_rows // block) + min(plan.num_experts, plan.num_rows)
    covered = []
    for own, first in zip(expert.tolist(), row.tolist(), strict=True):
        if own >= 0:
            end = int(plan.offsets[own + 1])
            assert int(plan.offsets[own]) <= first < end
            covered += range(first, min(first + block, end))
    assert covered == list(range(int(plan.offsets[-1])))


def test_tiles_need_a_block():
    with pytest.raises(ValueError, match=r"^block must be at least 1, got 0; 64 and 128 are usual$"):
        plan_routing(torch.tensor([[0]]), 1).tiles(0)


def test_offsets_are_the_sums_of_the_counts():
    offsets = offsets_of(torch.tensor([2, 0, 3]))
    assert (offsets.tolist(), offsets.dtype) == ([0, 2, 2, 5], torch.int32)
    assert offsets_of(torch.tensor([], dtype=torch.long)).tolist() == [0]


def test_an_index_that_int32_cannot_hold_is_refused_before_anything_is_made():
    # kernels count past the last row, to the end of its block.
    huge = torch.empty(2**31 - 2**16, 1, dtype=torch.int64, device="meta")
    with pytest.raises(
        ValueError,
        match=r"^a plan holds less than 2\*\*31 - 2\*\*16 slots, got 2147418112 tokens with 1 each; split the batch$",
    ):
        plan_routing(huge, 4)


def test_one_slot_less_is_planned():
    most = LIMIT - 1
    plan = torch.ops.workbench_kernels.plan_routing(torch.empty(most, 1, dtype=torch.int32, device="meta"), 4)
    assert [tuple(part.shape) for part in plan] == [(most,), (most, 1), (5,)]


@pytest.mark.parametrize(
    ("expert", "got"),
    [
        (torch.zeros(3, dtype=torch.long), r"int64 of shape \(3,\)"),
        (torch.zeros(3, 1), r"float32 of shape \(3, 1\)"),
        (torch.zeros(3, 1, dtype=torch.int16), r"int16 of shape \(3, 1\)"),
    ],
)
def test_other_ids_are_refused(expert, got):
    plain = plan_routing.__wrapped__
    with pytest.raises(ValueError, match=rf"^expert must be int32 or int64 of shape tokens x slots, got {got}; "):
        plain(expert, 2)


def test_a_plan_is_made_under_fullgraph(fullgraph):
    assert fullgraph["plan_routing"] == 0


def test_the_operator_keeps_its_promises():
    expert = torch.tensor([[1, -1], [1, 0]])
    torch.library.opcheck(torch.ops.workbench_kernels.plan_routing.default, (expert, 3))

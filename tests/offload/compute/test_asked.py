"""Who a plan asks for."""

import torch

from workbench.core import SparseRouting
from workbench.offload.compute.asked import Asked, asked_of


def plan_of(expert, **fields):
    chosen = torch.tensor(expert)
    return SparseRouting(expert=chosen, weight=torch.ones(chosen.shape), num_experts=6, **fields)


def test_experts_ascend_with_their_rows_and_the_first_token_that_asks():
    plan = plan_of([[4, 1], [4, 5], [1, 4]])
    assert asked_of(plan) == Asked([1, 4, 5], [2, 3, 1], [0, 0, 1])
    kept = torch.tensor([[False, True], [True, True], [False, True]])
    assert asked_of(plan_of([[4, 1], [4, 5], [1, 4]], kept=kept)) == Asked([1, 4, 5], [1, 2, 1], [0, 1, 1])


def test_one_token_is_read_as_it_is_unless_it_chooses_an_expert_twice():
    assert asked_of(plan_of([[4, -1, 1]])) == Asked([1, 4], [1, 1], [0, 0])
    assert asked_of(plan_of([[4, 4, 1]])) == Asked([1, 4], [1, 2], [0, 0])


def test_parts_keep_the_order_of_the_whole():
    asked = Asked([1, 4, 5], [2, 3, 1], [0, 0, 1])
    assert asked.part([2, 0]) == Asked([1, 5], [2, 1], [0, 1])
    assert asked.without([1]) == asked.part([0, 2])
    assert asked.without([]) is asked

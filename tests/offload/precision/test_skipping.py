"""Leaving out experts that weigh little."""

import pytest
import torch

from workbench.core.sparse import SparseRouting
from workbench.offload.precision.skipping import without_light


def plan_of(weight: list[list[float]], expert: list[list[int]], **fields) -> SparseRouting:
    return SparseRouting(expert=torch.tensor(expert), weight=torch.tensor(weight), num_experts=6, **fields)


PLAN = ([[0.75, 0.25], [0.5, 0.5], [0.2, 0.8]], [[0, 1], [2, 3], [4, 5]])


def test_the_papers_rule_for_two_experts():
    plan, skipped = without_light(plan_of(*PLAN), 0.3)
    assert skipped == 1
    # one quarter is below 0.3 of 0.8, one third of 0.75 is not.
    assert plan.kept.tolist() == [[True, True], [True, True], [False, True]]
    assert plan.weight[2, 1] == 1.0 and torch.equal(plan.weight[:2], plan_of(*PLAN).weight[:2])
    plan, skipped = without_light(plan_of(*PLAN), 0.5)
    assert skipped == 2 and plan.counts.tolist() == [1, 0, 1, 1, 0, 1]
    # weights that add up to one do so afterwards: the new normalisation of the paper.
    assert (plan.weight * plan.kept).sum(-1).tolist() == pytest.approx([1, 1, 1])


def test_nothing_is_the_same_plan():
    plan = plan_of(*PLAN)
    assert without_light(plan, 0.0) == (plan, 0)
    assert without_light(plan, 0.2) == (plan, 0)
    empty = SparseRouting(expert=torch.empty(3, 0, dtype=torch.long), weight=torch.empty(3, 0), num_experts=6)
    assert without_light(empty, 0.9) == (empty, 0)


def test_the_largest_weight_always_stays():
    weight = [[0.0, 0.0], [0.5, 0.5], [-0.9, 0.1]]
    plan, skipped = without_light(plan_of(weight, PLAN[1]), 0.999)
    assert skipped == 1 and plan.kept.tolist() == [[True, True], [True, True], [True, False]]
    # magnitudes add up to what they were, and signs stay.
    assert plan.weight[2, 0] == pytest.approx(-1.0)


def test_empty_and_lost_slots_are_not_skipped_again():
    kept = torch.tensor([[True, False], [True, True], [True, True]])
    plan, skipped = without_light(plan_of([[0.1, 0.9], [0.1, 0.9], [0.9, 0.9]], PLAN[1], kept=kept), 0.5)
    # the lost slot of the first token is no measure for the other one.
    assert skipped == 1 and plan.kept.tolist() == [[True, False], [False, True], [True, True]]
    assert plan.weight[0, 0] == pytest.approx(0.1)
    plan, skipped = without_light(plan_of([[0.9, 0.3, 5.0]], [[2, 4, -1]]), 0.5)
    assert skipped == 1 and plan.expert.tolist() == [[2]] and plan.weight.tolist() == [[pytest.approx(1.2)]]


def test_a_token_alone_loses_what_it_loses_among_others():
    weight, expert = PLAN
    together, _ = without_light(plan_of(weight, expert), 0.5)
    for token in range(3):
        alone, _ = without_light(plan_of(weight[token : token + 1], expert[token : token + 1]), 0.5)
        stays = together.kept[token]
        assert torch.equal(alone.expert[0], together.expert[token][stays])
        assert torch.equal(alone.weight[0], together.weight[token][stays])

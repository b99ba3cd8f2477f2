"""Capacity: how many rows, and who gets them."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from workbench.core import RouteContext, SparseRouting
from workbench.experts.mlp import MLPExperts
from workbench.routers._capacity import capacity_of, keep_first, slots_per_expert


def keep_by_hand(expert: list[list[int]], capacity: int, wanted: list[list[bool]]) -> list[list[bool]]:
    """All first choices in token order, then all second choices, and so on."""
    taken: dict[int, int] = {}
    kept = [[False] * len(row) for row in expert]
    for k in range(len(expert[0]) if expert else 0):
        for t, row in enumerate(expert):
            if wanted[t][k]:
                taken[row[k]] = taken.get(row[k], 0) + 1
                kept[t][k] = taken[row[k]] <= capacity
    return kept


def test_the_third_of_three_is_dropped_from_two_slots():
    # the card's fifth point.
    keep = keep_first(torch.tensor([[0], [0], [0], [1]]), 2, 2)
    assert keep.flatten().tolist() == [True, True, False, True]


def test_the_output_of_a_dropped_token_is_exactly_zero():
    expert = torch.tensor([[0], [0], [0], [1]])
    plan = SparseRouting.from_topk(expert, torch.ones(4, 1), keep=keep_first(expert, 2, 2), num_experts=2)
    experts = MLPExperts(3, 2, hidden=4)
    for parameter in experts.parameters():
        torch.nn.init.normal_(parameter)
    out = plan.apply(torch.ones(4, 3), experts, RouteContext())
    assert out[2].tolist() == [0, 0, 0]
    assert out[[0, 1, 3]].abs().min() > 0
    assert int(plan.counts.sum()) + 1 == int(plan.demand.sum()) == 4


def test_first_choices_come_before_any_second_choice():
    # token 0's second choice asks for expert 1 before token 1's first choice does, and still loses.
    assert keep_first(torch.tensor([[0, 1], [1, 0]]), 2, 1).tolist() == [[True, False], [True, False]]


def test_every_expert_may_have_slots_of_its_own():
    expert = torch.tensor([[0], [0], [1], [1], [1]])
    assert keep_first(expert, 2, torch.tensor([1, 2])).flatten().tolist() == [True, False, True, True, False]


def test_what_is_not_wanted_takes_no_slot():
    wanted = torch.tensor([[False], [True]])
    assert keep_first(torch.tensor([[0], [0]]), 1, 1, wanted=wanted).tolist() == [[False], [True]]


@given(st.integers(0, 8), st.integers(1, 3), st.integers(1, 4), st.integers(0, 5), st.data())
def test_it_is_the_loop_over_claims(tokens, width, experts, capacity, data):
    rows = st.lists(st.integers(0, experts - 1), min_size=width, max_size=width)
    flags = st.lists(st.booleans(), min_size=width, max_size=width)
    expert = [data.draw(rows) for _ in range(tokens)]
    wanted = [data.draw(flags) for _ in range(tokens)]
    every = [[True] * width] * tokens
    tensor = torch.tensor(expert, dtype=torch.long).view(tokens, width)
    asks = torch.tensor(wanted, dtype=torch.bool).view(tokens, width)
    assert keep_first(tensor, experts, capacity, wanted=asks).tolist() == keep_by_hand(expert, capacity, wanted)
    assert torch.equal(
        keep_first(tensor, experts, torch.full((experts,), capacity)), keep_first(tensor, experts, capacity)
    )
    assert keep_first(tensor, experts, capacity).tolist() == keep_by_hand(expert, capacity, every)


@pytest.mark.parametrize(
    ("tokens", "experts", "factor", "rows"),
    [(128, 8, 1.25, 20), (100, 8, 1.25, 15), (128, 8, 2.0, 32), (0, 8, 2.0, 4), (7, 4, 1.25, 4), (128, 8, 0.0, 4)],
)
def test_slots_are_rounded_down_and_never_below_four(tokens, experts, factor, rows):
    assert slots_per_expert(tokens, experts, factor) == rows


def test_the_floor_can_be_another():
    assert slots_per_expert(8, 8, 1.0, minimum=1) == 1


@pytest.mark.parametrize(("phase", "rows"), [("train", 20), ("eval", 32), ("prefill", None), ("decode", None)])
def test_only_training_and_evaluation_have_a_capacity(phase, rows):
    assert capacity_of(128, 8, RouteContext(phase=phase), train=1.25, evaluate=2.0) == rows


def test_no_factor_is_no_limit():
    assert capacity_of(128, 8, RouteContext(phase="train"), train=None, evaluate=1.0) is None
    assert capacity_of(128, 8, RouteContext(phase="eval"), train=1.0, evaluate=None) is None

"""Choosing from scores: ties, bans, groups."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from workbench.routers._select import best, limit_to_groups, steer


def test_the_best_come_first():
    expert, keep = best(torch.tensor([[0.1, 0.7, 0.2]]), 2)
    assert (expert.tolist(), keep) == ([[1, 2]], None)


def test_ties_go_to_the_lowest_index():
    assert best(torch.zeros(2, 5), 3)[0].tolist() == [[0, 1, 2]] * 2
    assert best(torch.tensor([[1.0, 2.0, 2.0, 1.0]]), 3)[0].tolist() == [[1, 2, 0]]


def test_a_banned_expert_is_chosen_last_and_not_kept():
    score = torch.tensor([[-torch.inf, -9.0, -torch.inf], [-torch.inf] * 3])
    expert, keep = best(score, 2, may_ban=True)
    assert expert[0, 0] == 1
    assert keep.tolist() == [[True, False], [False, False]]


@given(st.integers(0, 5), st.integers(1, 7), st.data())
def test_the_choice_is_that_of_a_sorted_list(tokens, experts, data):
    cells = st.lists(st.sampled_from([-1.0, 0.0, 0.5, 2.0, -torch.inf]), min_size=experts, max_size=experts)
    rows = [data.draw(cells) for _ in range(tokens)]
    top_k = data.draw(st.integers(1, experts))
    score = torch.tensor(rows).view(tokens, experts)
    expert, keep = best(score, top_k, may_ban=True)
    expected = [sorted(range(experts), key=lambda e: (-row[e], e))[:top_k] for row in rows]
    assert expert.tolist() == expected
    assert keep.tolist() == [[row[e] > -torch.inf for e in chosen] for row, chosen in zip(rows, expected, strict=True)]


def test_no_gradient_goes_through_the_choice():
    assert not best(torch.rand(3, 4, requires_grad=True), 2, may_ban=True)[1].requires_grad


def test_a_bias_is_added_to_every_token_where_there_is_one():
    score = torch.tensor([[1.0, 2.0]])
    assert steer(score, None) is score
    assert steer(score, torch.tensor([0.5, -torch.inf])).tolist() == [[1.5, -torch.inf]]


# The card's sixth point: every biased score of the kept groups is below zero.
BIASED = torch.tensor([[-0.30, -0.28, 0.10, -0.35, -0.10, -0.08, -0.08, -0.09]])


def test_masked_groups_lose_against_negative_scores():
    assert set(best(limit_to_groups(BIASED, 4, 2, "top2"), 2)[0][0].tolist()) == {5, 6}


def test_counting_groups_by_their_best_keeps_other_groups():
    assert set(best(limit_to_groups(BIASED, 4, 2, "max"), 2)[0][0].tolist()) == {2, 5}


@given(st.integers(1, 4), st.integers(1, 4), st.sampled_from(["max", "top2"]), st.data())
def test_groups_are_kept_whole_or_masked_whole(groups, size, value, data):
    kept = data.draw(st.integers(1, groups))
    score = torch.randn(3, groups * size, generator=torch.Generator().manual_seed(groups * 7 + size))
    limited = limit_to_groups(score, groups, kept, value)
    for row, before in zip(limited.view(3, groups, size), score.view(3, groups, size), strict=True):
        worth = [sum(sorted(group.tolist())[-(1 if value == "max" else 2) :]) for group in before]
        survivors = sorted(range(groups), key=lambda g: -worth[g])[:kept]
        for g in range(groups):
            expected = before[g] if g in survivors else torch.full((size,), -torch.inf)
            assert torch.equal(row[g], expected)


def test_a_banned_group_is_kept_only_when_nothing_else_is_left():
    score = torch.tensor([[-torch.inf, -torch.inf, 1.0, 2.0]])
    assert limit_to_groups(score, 2, 1, "top2").tolist() == [[-torch.inf, -torch.inf, 1.0, 2.0]]
    assert limit_to_groups(score, 2, 1, "max").isnan().sum() == 0

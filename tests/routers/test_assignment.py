"""Balanced assignment: the card's case, brute force, and how far an auction may be from the best."""

import itertools
import math

import pytest
import torch

from workbench.routers._assignment import auction, exact

CARD = torch.tensor([[3.0, 1.0], [2.5, 0.0], [2.0, 1.9], [0.1, 0.0]])


def total(score: torch.Tensor, owner: torch.Tensor) -> float:
    return float(score.gather(1, owner.unsqueeze(1)).sum())


def best_total(score: torch.Tensor) -> float:
    """The largest total over all assignments that no expert's share exceeds, one after the other."""
    tokens, experts = score.shape
    share = math.ceil(tokens / experts)
    owners = itertools.product(range(experts), repeat=tokens)
    fair = (owner for owner in owners if max(owner.count(e) for e in range(experts)) <= share)
    return max(total(score, torch.tensor(owner)) for owner in fair)


def normal(tokens: int, experts: int, seed: int) -> torch.Tensor:
    return torch.randn(tokens, experts, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("solve", [exact, auction])
def test_the_card_s_case_splits_the_tokens_in_two(solve):
    assert solve(CARD).tolist() == [0, 0, 1, 1]
    assert total(CARD, solve(CARD)) == pytest.approx(7.4)


@pytest.mark.parametrize(("tokens", "experts"), [(6, 2), (6, 3), (5, 3), (4, 4), (7, 2), (3, 4), (1, 3)])
@pytest.mark.parametrize("seed", range(4))
def test_the_exact_one_has_the_largest_total_of_all(tokens, experts, seed):
    score = normal(tokens, experts, seed) + 2 * torch.randn(experts, generator=torch.Generator().manual_seed(seed))
    assert total(score, exact(score)) == pytest.approx(best_total(score), abs=1e-5)


@pytest.mark.parametrize("solve", [exact, auction])
@pytest.mark.parametrize(("tokens", "experts"), [(64, 8), (512, 8), (8, 8), (96, 3), (7, 1)])
def test_every_expert_gets_its_share(solve, tokens, experts):
    assert (
        torch.bincount(solve(normal(tokens, experts, 0)), minlength=experts).tolist() == [tokens // experts] * experts
    )


@pytest.mark.parametrize("solve", [exact, auction])
@pytest.mark.parametrize(("tokens", "experts"), [(65, 8), (7, 8), (1, 8), (100, 3), (0, 4)])
def test_a_remainder_gives_no_expert_more_than_the_share_rounded_up(solve, tokens, experts):
    owner = solve(normal(tokens, experts, 0))
    assert owner.shape == (tokens,)
    assert int(torch.bincount(owner, minlength=experts).max()) <= math.ceil(tokens / experts)


@pytest.mark.parametrize(("tokens", "experts"), [(8, 4), (16, 4), (64, 8), (256, 8)])
@pytest.mark.parametrize("seed", range(10))
def test_an_auction_loses_at_most_a_step_per_token(tokens, experts, seed):
    score = normal(tokens, experts, seed)
    step = float(score.max() - score.min()) / 50
    gap = total(score, exact(score)) - total(score, auction(score))
    assert -1e-4 <= gap <= tokens * step
    if tokens >= 64:
        assert gap <= 0.1 * total(score, exact(score))


def test_an_auction_gives_what_the_released_solver_gives():
    # computed with the released C++ solver on these integer scores over 10.
    score = (
        torch.tensor(
            [[9, -3, 4], [8, 7, 1], [7, 2, 6], [-5, -6, 3], [5, 6, -1], [6, 1, -9], [2, -4, 8], [4, 3, -2], [1, 9, 0]]
        )
        / 10
    )
    assert auction(score).tolist() == [0, 1, 2, 2, 1, 0, 2, 0, 1]


@pytest.mark.parametrize("along", [0, 1])
def test_a_constant_per_token_or_expert_never_changes_the_exact_one(along):
    for seed in range(20):
        score = normal(24, 4, seed)
        constant = 5 * normal(1, 4, seed) if along else 5 * normal(24, 1, seed)
        assert torch.equal(exact(score + constant), exact(score))


@pytest.mark.parametrize("solve", [exact, auction])
@pytest.mark.parametrize("score", [torch.zeros(40, 4), torch.ones(13, 5) * 1e6, torch.eye(4).repeat(10, 1) * 1e-5])
def test_equal_scores_end(solve, score):
    owner = solve(score)
    assert int(torch.bincount(owner, minlength=score.shape[1]).max()) <= math.ceil(len(score) / score.shape[1])
    assert torch.equal(owner, solve(score))


@pytest.mark.parametrize("solve", [exact, auction])
def test_what_is_not_finite_counts_as_the_worst_score(solve):
    score = CARD.clone()
    score[2, 0], score[0, 1], score[3, 1] = torch.nan, -torch.inf, torch.inf
    # of the finite scores the smallest is 0, in token 1.
    expected = CARD.clone()
    expected[2, 0] = expected[0, 1] = expected[3, 1] = 0
    assert total(expected, solve(score)) == pytest.approx(best_total(expected))
    assert solve(torch.full((4, 2), torch.nan)).sort().values.tolist() == [0, 0, 1, 1]

"""Plans with few entries: the card's plans, brute force for the projection, and what holds before the end."""

import itertools

import pytest
import torch

from workbench.routers._sparse_plan import project, sparse_plan

S = torch.tensor([[0.9, 0.1], [0.6, 0.4], [0.55, 0.45], [0.2, 0.8]], dtype=torch.float64)


def onto_simplex(x: torch.Tensor) -> torch.Tensor:
    """The nearest point of the simplex, by bisection of the shift."""
    low, high = x.min() - 1, x.max()
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if (x - middle).clamp_min(0).sum() > 1 else (low, middle)
    return (x - (low + high) / 2).clamp_min(0)


def objective(plan: torch.Tensor, similarity: torch.Tensor) -> float:
    return float(-(plan * similarity).sum() + 0.5 * plan.square().sum())


@pytest.mark.parametrize(("k", "expected"), [(1, [1, 0, 0, 0]), *((k, [0.6, 0.4, 0, 0]) for k in (2, 3, 4))])
def test_the_projection_of_the_card(k, expected):
    x = torch.tensor([[0.9, 0.7, 0.1, -0.3], [-0.3, 0.1, 0.7, 0.9]], dtype=torch.float64)
    both = torch.tensor([expected, expected[::-1]], dtype=torch.float64)
    torch.testing.assert_close(project(x, k), both)


@pytest.mark.parametrize("k", [1, 2, 3, 5, 9])
def test_the_projection_is_the_best_over_all_supports(k, assert_close):
    x = torch.randn(6, 7, dtype=torch.float64)
    for row, found in zip(x, project(x, k), strict=True):
        candidates = []
        for support in itertools.combinations(range(7), min(k, 7)):
            point = torch.zeros_like(row)
            point[list(support)] = onto_simplex(row[list(support)])
            candidates.append(point)
        assert_close(found, min(candidates, key=lambda point: float((point - row).square().sum())))


def test_ties_keep_the_lowest_index():
    assert project(torch.zeros(1, 5), 2).tolist() == [[0.5, 0.5, 0, 0, 0]]


@pytest.mark.parametrize(
    ("k", "expected", "value"),
    [
        (2, [[1, 0], [1, 0], [0, 1], [0, 1]], -0.75),
        (3, [[1, 0], [0.525, 0.475], [0.475, 0.525], [0, 1]], -1.20125),
        (4, [[0.8375, 0.1625], [0.5375, 0.4625], [0.4875, 0.5125], [0.1375, 0.8625]], -1.246875),
    ],
)
def test_the_plans_of_the_card(k, expected, value):
    plan = sparse_plan(S, 1.0, 2.0, k, iterations=1500, rate=2e-3)
    torch.testing.assert_close(plan, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=5e-3)
    assert objective(plan, S) == pytest.approx(value, abs=5e-3)


def test_one_entry_per_column_puts_a_column_s_whole_sum_on_one_row():
    plan = sparse_plan(S, 1.0, 2.0, 1, iterations=300)
    assert (plan > 0).sum(0).tolist() == [1, 1]
    assert plan.max(0).values.tolist() == [2.0, 2.0]


@pytest.mark.parametrize("iterations", [0, 1, 20])
@pytest.mark.parametrize("k", [1, 3, 16])
def test_every_column_has_its_sum_and_at_most_k_entries_at_any_time(iterations, k, assert_close):
    plan = sparse_plan(torch.randn(16, 4).softmax(-1), 1.0, 4.0, k, iterations=iterations)
    assert_close(plan.sum(0), torch.full((4,), 4.0))
    assert int((plan > 0).sum(0).max()) <= k
    assert plan.min() >= 0


def test_rows_come_nearer_to_their_sums_with_the_iterations():
    similarity = torch.randn(64, 8)
    plans = [sparse_plan(similarity, 1.0, 8.0, 64, iterations=n) for n in (0, 20, 60, 400)]
    errors = [float((plan.sum(1) - 1).abs().max()) for plan in plans]
    assert errors == sorted(errors, reverse=True)
    assert errors[0] > 4 * errors[-1]


@pytest.mark.parametrize("seed", range(3))
def test_a_plan_of_all_entries_has_the_row_error_that_the_card_measured(seed):
    similarity = torch.randn(64, 8, generator=torch.Generator().manual_seed(seed)).softmax(-1)
    after = [float((sparse_plan(similarity, 1.0, 8.0, 64, iterations=n).sum(1) - 1).abs().max()) for n in (20, 100)]
    # 0.041 after 20 iterations, below 0.001 after 100.
    assert 0.08 > after[0] > 0.01
    assert after[1] < 5e-3


def test_a_constant_for_all_changes_nothing(assert_close):
    similarity = torch.randn(16, 4, dtype=torch.float64)
    one, other = (sparse_plan(z, 1.0, 4.0, 6) for z in (similarity, similarity + 3))
    assert_close(one, other)


@pytest.mark.parametrize(("by_row", "k"), [(True, 2), (False, 4)])
def test_it_is_what_another_reading_of_the_released_code_gives(by_row, k):
    # computed one column at a time in numpy, with the released solver's steps.
    similarity = torch.tensor(
        [[0.5, 0.3, 0.2], [0.1, 0.6, 0.3], [0.7, 0.2, 0.1], [0.25, 0.35, 0.4], [0.6, 0.3, 0.1], [0.2, 0.2, 0.6]],
        dtype=torch.float64,
    )
    rows = [[0.581841, 0, 0.418159], [0, 0.596568, 0.403432], [0.731841, 0, 0.268159]]
    rows += [[0, 0.421568, 0.578432], [0.635273, 0.364727, 0], [0, 0.246568, 0.753432]]
    columns = [[0.465068, 0.446025, 0.344233], [0, 0.637288, 0], [0.760884, 0.441841, 0.340048]]
    columns += [[0, 0.474845, 0.523052], [0.560545, 0, 0], [0.213503, 0, 0.792667]]
    plan = sparse_plan(similarity.t(), 2.0, 1.0, k).t() if by_row else sparse_plan(similarity, 1.0, 2.0, k)
    torch.testing.assert_close(plan, torch.tensor(rows if by_row else columns).double(), rtol=0, atol=1e-6)

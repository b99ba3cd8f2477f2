"""The learned order of experts: soft, then hard for good."""

import itertools
import math

import pytest
import torch

from workbench.core import RouteContext
from workbench.routers._permutation import Permutation, best_assignment, permutation_entropy, sinkhorn

TRAIN = RouteContext(phase="train")


@pytest.mark.parametrize("size", [1, 2, 3, 5, 6])
def test_the_assignment_is_the_best_of_all_orders(size):
    gain = torch.rand(4, size, size, dtype=torch.float64)
    rows = torch.arange(size)
    for one, order in zip(gain, best_assignment(gain), strict=True):
        best = max(float(one[rows, list(other)].sum()) for other in itertools.permutations(range(size)))
        assert sorted(order.tolist()) == list(range(size))
        assert math.isclose(float(one[rows, order].sum()), best)


def test_a_greedy_choice_would_have_been_worse():
    # row 0 likes column 0 best and gives it up, since row 1 would lose more.
    assert best_assignment(torch.tensor([[[5.0, 4.0], [4.0, 0.0]]])).tolist() == [[1, 0]]


@pytest.mark.parametrize("size", [2, 8, 16])
def test_a_permutation_is_its_own_assignment(size):
    order = torch.randperm(size)
    assert best_assignment(torch.eye(size)[order].unsqueeze(0)).tolist() == [order.tolist()]


def test_columns_of_the_soft_matrix_sum_to_one_on_the_whole_schedule():
    permutation = Permutation(8, steps=10)
    for step in range(10):
        permutation.step.fill_(step)
        soft = permutation.soft()
        torch.testing.assert_close(soft.sum(-2), torch.ones(1, 8))
        assert soft.isfinite().all()


def test_enough_rounds_at_a_mild_temperature_bring_rows_to_one_too():
    matrix = sinkhorn((torch.rand(3, 8, 8) * 0.1 - 0.05) / 1e-2, 100)
    assert (matrix.sum(-1) - 1).abs().max() < 1e-2
    assert (matrix.sum(-2) - 1).abs().max() < 1e-5


def test_one_round_by_hand(assert_close):
    # rows first: (1/3, 2/3), (1/2, 1/2); then columns.
    matrix = sinkhorn(torch.tensor([[[1.0, 2.0], [1.0, 1.0]]]).log(), 1)
    assert_close(matrix, torch.tensor([[[2 / 5, 4 / 7], [3 / 5, 3 / 7]]]))


def test_temperature_and_rounds_follow_the_published_schedule():
    permutation = Permutation(4, steps=100)
    seen = []
    for step in (0, 50, 100):
        permutation.step.fill_(step)
        seen.append(permutation.temperature)
    assert seen == pytest.approx([1e-3, 1e-5, 1e-7])
    permutation.step.fill_(50)
    assert torch.equal(permutation.soft(), sinkhorn(permutation.score / permutation.temperature, 85))


def test_gradients_reach_the_scores_at_the_start_and_never_after_the_last_step():
    permutation = Permutation(6, steps=3)
    permutation(TRAIN)[0, 0, 0].backward()
    assert permutation.score.grad.abs().max() > 0
    for _ in range(3):
        assert permutation(TRAIN).requires_grad
        permutation.advance()
    assert not permutation(TRAIN).requires_grad


def test_it_is_hard_outside_training_from_the_start():
    permutation = Permutation(6, copies=2, steps=3)
    hard = permutation(RouteContext(phase="prefill"))
    assert torch.equal(hard @ hard.mT, torch.eye(6).expand(2, 6, 6))
    soft = permutation.soft()
    assert torch.equal(hard.argmax(-1), best_assignment(soft))


def test_only_advance_moves_the_step_and_a_fixed_order_stays():
    permutation = Permutation(6, steps=2)
    permutation(TRAIN)
    assert int(permutation.step) == 0
    for _ in range(4):
        permutation.advance()
    assert int(permutation.step) == 2
    before = permutation(TRAIN)
    with torch.no_grad():
        permutation.score.copy_(permutation.score.flip(-1))
    permutation.advance()
    assert torch.equal(permutation(TRAIN), before)


def test_the_order_and_the_step_are_saved():
    permutation = Permutation(6, steps=5)
    with torch.no_grad():
        permutation.score.copy_(torch.randn(1, 6, 6))
    for _ in range(5):
        permutation.advance()
    again = Permutation(6, steps=5)
    again.load_state_dict(permutation.state_dict())
    assert torch.equal(again(TRAIN), permutation(TRAIN))
    assert not torch.equal(Permutation(6, steps=5)(RouteContext()), permutation(TRAIN))


def test_noise_is_that_of_the_step_and_absent_by_default():
    noisy, plain = Permutation(6, steps=5, noise=0.01), Permutation(6, steps=5)
    plain.load_state_dict(noisy.state_dict())
    assert torch.equal(noisy(TRAIN), noisy(TRAIN))
    assert not torch.equal(noisy(TRAIN), noisy(TRAIN.at(step=1)))
    assert torch.equal(plain(TRAIN), plain(TRAIN.at(step=1)))


def test_the_entropy_of_a_permutation_is_zero_and_of_an_even_matrix_the_largest():
    assert abs(float(permutation_entropy(torch.eye(4).unsqueeze(0)))) < 1e-4
    even = torch.full((1, 4, 4), 0.25)
    assert math.isclose(float(permutation_entropy(even)), 8 * math.log(4), rel_tol=1e-4)

"""The step from 0 to 1: smooth inside, flat outside."""

import pytest
import torch

from workbench.routers._smooth_step import smooth_step


def test_the_worked_values_of_width_one():
    x = torch.tensor([-9.0, -0.5, -0.25, 0.0, 0.25, 0.5, 9.0])
    assert smooth_step(x, 1.0).tolist() == [0.0, 0.0, 0.15625, 0.5, 0.84375, 1.0, 1.0]


@pytest.mark.parametrize("width", [0.01, 1.0, 8.0])
def test_the_width_only_stretches_it(width, assert_close):
    x = torch.linspace(-0.7, 0.7, 29)
    assert_close(smooth_step(x * width, width), smooth_step(x, 1.0))


@pytest.mark.parametrize("width", [0.5, 1.0, 4.0])
def test_it_is_the_published_cubic(width, assert_close):
    x = torch.linspace(-width, width, 41, dtype=torch.float64)
    cubic = -2 / width**3 * x**3 + 3 / (2 * width) * x + 0.5
    expected = torch.where(x <= -width / 2, 0.0, torch.where(x >= width / 2, 1.0, cubic))
    assert_close(smooth_step(x, width), expected)


def test_the_gradient_is_steepest_in_the_middle_and_exactly_zero_outside():
    x = torch.tensor([-3.0, -0.51, 0.0, 0.51, 3.0], requires_grad=True)
    smooth_step(x, 1.0).sum().backward()
    assert x.grad.tolist() == [0.0, 0.0, 1.5, 0.0, 0.0]


def test_the_gradient_is_that_of_finite_differences():
    x = torch.linspace(-1.3, 1.3, 12, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: smooth_step(x, 2.0), (x,))

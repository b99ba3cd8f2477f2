"""A linear map with a bias, whatever the dtype around it."""

import torch

from workbench.routers._affine import Affine


def test_it_is_a_linear_map_with_a_bias(assert_close):
    affine = Affine(3, 2, bound=0.1)
    affine.weight.data = torch.tensor([[1.0, 2.0, 3.0], [0.0, -1.0, 0.5]])
    affine.bias.data = torch.tensor([0.25, -1.0])
    assert_close(affine(torch.tensor([[1.0, 0.0, -1.0]])), torch.tensor([[-1.75, -1.5]]))


def test_weights_and_biases_start_inside_the_bound_and_fill_it():
    affine = Affine(50, 40, bound=0.2)
    for parameter in (affine.weight, affine.bias):
        assert 0.15 < parameter.abs().max() <= 0.2
        assert parameter.min() < 0 < parameter.max()


def test_autocast_and_half_weights_do_not_round_the_sum():
    affine = Affine(64, 4, bound=0.2).bfloat16()
    x = torch.randn(5, 64).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = affine(x)
    assert out.dtype == torch.float32
    assert torch.equal(out, x.float() @ affine.weight.float().t() + affine.bias.float())

"""A linear map that is never trained."""

import torch
from torch import nn

from workbench.routers._frozen import FrozenLinear


def test_it_is_a_linear_layer_whose_tensors_are_saved_and_never_optimised(assert_close):
    frozen, usual = FrozenLinear(6, 3), nn.Linear(6, 3)
    usual.load_state_dict(frozen.state_dict())
    x = torch.randn(5, 6, requires_grad=True)
    assert_close(frozen(x), usual(x))
    assert list(frozen.parameters()) == []
    assert set(frozen.state_dict()) == {"weight", "bias"}
    frozen(x).sum().backward()
    assert_close(x.grad, frozen.weight.sum(0).expand(5, 6))


def test_its_numbers_are_even_between_plus_and_minus_one_over_the_root_of_its_inputs():
    frozen = FrozenLinear(64, 4000)
    for tensor in (frozen.weight, frozen.bias):
        assert tensor.abs().max() <= 1 / 8
        assert abs(float(tensor.std()) - 1 / 8 / 3**0.5) < 0.002
        assert abs(float(tensor.mean())) < 0.005


def test_autocast_does_not_reach_it():
    frozen, x = FrozenLinear(32, 8), torch.randn(9, 32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(frozen(x), frozen(x.clone()))
        assert frozen(x).dtype == torch.float32
        assert frozen(x.bfloat16()).dtype == torch.float32
        inside = frozen(x)
    assert torch.equal(inside, frozen(x))

"""The gate: float32 whatever comes in."""

import pytest
import torch
from workbench_kernels.reference import gate_ref

from workbench.routers._gate import Gate, check_top_k


def test_it_agrees_with_its_reference():
    gate, x = Gate(16, 4), torch.randn(5, 16, requires_grad=True)
    ours, reference = gate(x), gate_ref(x, gate.weight)
    assert torch.equal(ours, reference)
    upstream = torch.randn(5, 4)
    leaves = (x, gate.weight)
    for got, expected in zip(
        torch.autograd.grad(ours, leaves, upstream), torch.autograd.grad(reference, leaves, upstream), strict=True
    ):
        assert torch.equal(got, expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_logits_are_float32_for_any_dtype_of_the_tokens(dtype):
    gate, x = Gate(16, 4), torch.randn(5, 16).to(dtype)
    assert gate(x).dtype == torch.float32
    assert torch.equal(gate(x), gate(x.float()))


def test_autocast_does_not_reach_inside():
    gate, x = Gate(64, 4), torch.randn(5, 64)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = gate(x)
        assert (x @ gate.weight.t()).dtype == torch.bfloat16
    assert torch.equal(inside, gate(x))


def test_the_initialisation_has_the_given_deviation():
    # the standard error of a deviation from n numbers is std / sqrt(2 n).
    for std in (0.02, 0.5):
        weight = Gate(400, 100, std=std).weight.detach()
        assert abs(float(weight.std()) / std - 1) < 4 / (2 * weight.numel()) ** 0.5
        assert abs(float(weight.mean())) < 4 * std / weight.numel() ** 0.5


def test_the_weights_can_be_drawn_anew():
    gate = Gate(8, 4)
    before = gate.weight.detach().clone()
    gate.reset_parameters()
    assert not torch.equal(gate.weight, before)


def test_the_number_of_choices_must_fit():
    assert [check_top_k(k, 4) for k in (1, 4)] == [1, 4]
    for wrong in (0, 5, -1):
        with pytest.raises(ValueError) as error:
            check_top_k(wrong, 4)
        assert str(error.value) == (
            f"top_k must be between 1 and num_experts=4, got {wrong}; use more experts or a smaller top_k"
        )

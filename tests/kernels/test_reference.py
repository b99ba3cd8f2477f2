"""The specification itself, checked by hand and by finite differences: nothing else stands behind it."""

import math

import pytest
import torch
from workbench_kernels.reference import (
    ACTIVATIONS,
    activation_slope_ref,
    gate_ref,
    grouped_mm_backward_ref,
    grouped_mm_ref,
    moe_mlp_backward_ref,
    moe_mlp_ref,
    permute_backward_ref,
    permute_ref,
    plan_ref,
    topk_gate_backward_ref,
    topk_gate_ref,
    unpermute_backward_ref,
    unpermute_ref,
)


def numbers(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True)


def same(found, out, leaves, grad) -> bool:
    return all(torch.allclose(a, b) for a, b in zip(found, torch.autograd.grad(out, leaves, grad), strict=True))


def test_the_gate_is_a_product_in_float32():
    x, weight = torch.tensor([[1.0, 2.0]], dtype=torch.bfloat16), torch.tensor([[3.0, 4.0], [-1.0, 0.5]])
    logits = gate_ref(x, weight)
    assert (logits.dtype, logits.tolist()) == (torch.float32, [[11.0, 0.0]])


def test_the_gate_does_not_round_to_the_tokens_dtype():
    # 257 needs nine bits, and bfloat16 has eight.
    ones = torch.ones(1, 257, dtype=torch.bfloat16)
    assert gate_ref(ones, torch.ones(1, 257)).item() == 257


def test_the_best_two_of_three_by_hand():
    logits = torch.tensor([[1.0, 3.0, 2.0]]).log()
    weight, expert = topk_gate_ref(logits, 2)
    assert expert.tolist() == [[1, 2]]
    torch.testing.assert_close(weight, torch.tensor([[3 / 6, 2 / 6]]))
    torch.testing.assert_close(topk_gate_ref(logits, 2, normalize=True, scale=2.0)[0], torch.tensor([[1.2, 0.8]]))


def test_a_bias_moves_the_choice_and_not_the_weight():
    weight, expert = topk_gate_ref(torch.zeros(1, 3), 1, score="sigmoid", bias=torch.tensor([0.0, 0.1, 0.0]))
    assert (weight.tolist(), expert.tolist()) == ([[0.5]], [[1]])


@pytest.mark.parametrize("score", ["softmax", "sigmoid"])
@pytest.mark.parametrize("normalize", [False, True])
def test_gradients_of_the_gate_by_hand_are_those_of_autograd(score, normalize):
    logits, options = numbers(5, 4), {"score": score, "normalize": normalize, "scale": 1.5}
    weight, expert = topk_gate_ref(logits, 2, bias=torch.arange(4.0), **options)
    grad = numbers(5, 2, seed=1).detach()
    assert same((topk_gate_backward_ref(grad, logits.detach(), expert, **options),), weight, (logits,), grad)
    assert torch.autograd.gradcheck(lambda x: topk_gate_ref(x, 2, **options)[0], (logits,))


def test_a_plan_by_hand():
    plan = plan_ref(torch.tensor([[1, -1], [1, 0], [-1, 5]]), 3)
    assert (plan.rows.tolist(), plan.offsets.tolist()) == ([1, 0, 1, 0, 0, 0], [0, 1, 3, 3])
    assert plan.row_of.tolist() == [[1, -1], [2, 0], [-1, -1]]


def test_permute_repeats_the_tokens_of_the_rows():
    assert permute_ref(torch.tensor([[1.0], [2.0]]), torch.tensor([1, 0, 1])).flatten().tolist() == [2, 1, 2]


def test_unpermute_weighs_and_adds_and_skips_the_absent():
    rows, row_of = torch.tensor([[10.0], [100.0]]), torch.tensor([[1, 0], [-1, 1], [-1, -1]])
    weight = torch.tensor([[0.5, 2.0], [9.0, 0.25], [9.0, 9.0]])
    assert unpermute_ref(rows, row_of, weight).flatten().tolist() == [70, 25, 0]


def test_gradients_there_and_back_by_hand_are_those_of_autograd(case):
    x, weight, grad = numbers(case.plan.num_tokens, 2), numbers(*case.expert.shape), numbers(case.plan.num_tokens, 2)
    used = case.plan.rows[: int(case.plan.offsets[-1])].long()
    rows = permute_ref(x, used)
    found = permute_backward_ref(rows.detach(), case.plan.row_of)
    if len(used):
        assert same((found,), rows, (x,), rows.detach())
        out = unpermute_ref(rows, case.plan.row_of, weight)
        by_hand = unpermute_backward_ref(grad.detach(), rows.detach(), case.plan.row_of, weight.detach())
        assert same(by_hand, out, (rows, weight), grad)


def test_grouped_product_gives_every_group_its_matrix():
    rows, weight = torch.tensor([[1.0], [2.0], [3.0], [9.0]]), torch.tensor([[[10.0]], [[7.0]], [[100.0]]])
    offsets = torch.tensor([0, 2, 2, 3])
    assert grouped_mm_ref(rows, weight, offsets).flatten().tolist() == [10, 20, 300, 0]
    bias = torch.tensor([[1.0], [2.0], [3.0]])
    assert grouped_mm_ref(rows, weight, offsets, bias).flatten().tolist() == [11, 21, 303, 0]


def test_gradients_of_the_grouped_product_by_hand_are_those_of_autograd():
    rows, weight, bias, offsets = numbers(7, 3), numbers(3, 2, 3), numbers(3, 2), torch.tensor([0, 2, 2, 6])
    out, grad = grouped_mm_ref(rows, weight, offsets, bias), numbers(7, 2, seed=1).detach()
    found = grouped_mm_backward_ref(grad, rows.detach(), weight.detach(), offsets)
    assert same(found, out, (rows, weight, bias), grad)
    assert torch.autograd.gradcheck(
        lambda *leaves: grouped_mm_ref(*leaves[:2], offsets, leaves[2]), (rows, weight, bias)
    )


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_slopes_are_those_of_autograd(activation):
    x = torch.linspace(-6, 6, 101, dtype=torch.float64, requires_grad=True)
    (expected,) = torch.autograd.grad(ACTIVATIONS[activation](x).sum(), x)
    torch.testing.assert_close(activation_slope_ref(x.detach(), activation), expected)


def test_one_swiglu_expert_by_hand():
    # gate 2, up 3, down 5: 5 * silu(2x) * 3x, at x = 1 and weight 0.5.
    gate_up, down = torch.tensor([[[2.0], [3.0]]]), torch.tensor([[[5.0]]])
    out = moe_mlp_ref(torch.ones(1, 1), torch.tensor([[0]]), torch.tensor([[0.5]]), gate_up, down)
    assert math.isclose(out.item(), 0.5 * 5 * (2 / (1 + math.exp(-2))) * 3, rel_tol=1e-6)


def test_an_expert_of_minus_one_adds_nothing():
    gate_up, down = torch.ones(1, 2, 1), torch.full((1, 1, 1), torch.inf)
    out = moe_mlp_ref(torch.ones(2, 1), torch.tensor([[-1], [-1]]), torch.ones(2, 1), gate_up, down)
    assert out.tolist() == [[0], [0]]


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_gradients_of_the_layer_by_hand_are_those_of_autograd(case, activation):
    tokens, experts = case.plan.num_tokens, case.num_experts
    leaves = numbers(tokens, 3), numbers(*case.expert.shape), numbers(experts, 4, 3), numbers(experts, 3, 2)
    x, weight, gate_up, down = leaves
    out, grad = moe_mlp_ref(x, case.plan, weight, gate_up, down, activation=activation), numbers(tokens, 3).detach()
    assert torch.equal(out, moe_mlp_ref(x, case.expert, weight, gate_up, down, activation=activation))
    plain = (x.detach(), case.plan, weight.detach(), gate_up.detach(), down.detach())
    found = moe_mlp_backward_ref(grad, *plain, activation=activation)
    expected = torch.autograd.grad(out, leaves, grad, allow_unused=True, materialize_grads=True) if tokens else None
    assert expected is None or all(torch.allclose(a, b) for a, b in zip(found, expected, strict=True))


def test_gradients_of_the_layer_are_those_of_finite_differences(case_named):
    case = case_named("dropped")
    leaves = numbers(9, 2), numbers(9, 3), numbers(5, 4, 2), numbers(5, 2, 2)
    assert torch.autograd.gradcheck(lambda x, *rest: moe_mlp_ref(x, case.plan, *rest), leaves)


def test_no_tokens_give_no_tokens():
    none = torch.zeros(0, 2, dtype=torch.long)
    assert moe_mlp_ref(torch.zeros(0, 3), none, torch.zeros(0, 2), torch.ones(1, 4, 3), torch.ones(1, 3, 2)).shape == (
        0,
        3,
    )
    assert unpermute_ref(torch.zeros(0, 3), none, torch.zeros(0, 2)).shape == (0, 3)

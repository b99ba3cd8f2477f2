"""Every instruction set of the C++ kernels against the reference in float64, values and all gradients."""

import pytest
import torch
from workbench_kernels.attention_reference import attention_backward_ref, attention_ref
from workbench_kernels.cpu import engine
from workbench_kernels.plan import RoutingPlan
from workbench_kernels.reference import grouped_mm_backward_ref, grouped_mm_ref, moe_mlp_ref

# Relative Frobenius distance to float64: outputs, gradients.
LIMITS = {torch.float32: (1e-6, 2e-6), torch.bfloat16: (3.5e-3, 6e-3), torch.float16: (7.5e-4, 1.5e-3)}
# tokens, width, hidden, experts, choices: nothing divides anything.
SHAPES = {
    "ragged": (150, 40, 24, 5, 2),
    "few_tokens": (7, 64, 32, 4, 2),
    "one_token": (1, 256, 512, 16, 2),
    "odd_sizes": (70, 300, 65, 6, 3),
    "tiny": (33, 17, 9, 3, 1),
    "two_busy_experts": (300, 64, 100, 4, 2),
}


def distance(found, exact):
    return float((found.double() - exact).norm() / exact.norm().clamp_min(1e-30))


def layer(shape, dtype):
    tokens, width, hidden, experts, choices = SHAPES[shape]
    generator = torch.Generator().manual_seed(5)

    def normal(*sizes):
        return torch.randn(sizes, generator=generator)

    expert = torch.rand(tokens, experts, generator=generator).topk(choices).indices
    if shape == "two_busy_experts":
        expert = torch.tensor([1, 3]).expand(tokens, 2).contiguous()
    else:
        expert[torch.rand(tokens, choices, generator=generator) < 0.1] = -1
        expert[torch.rand(tokens, choices, generator=generator) < 0.1] = experts + 3
    tensors = (
        normal(tokens, width).to(dtype),
        torch.rand(tokens, choices, generator=generator),
        (normal(experts, 2 * hidden, width) / width**0.5).to(dtype),
        (normal(experts, width, hidden) / hidden**0.5).to(dtype),
    )
    return tensors, expert, normal(tokens, width).to(dtype)


def exact(tensors, expert, grad, activation):
    leaves = [tensor.double().requires_grad_() for tensor in tensors]
    out = moe_mlp_ref(leaves[0], expert, *leaves[1:], activation=activation)
    out.backward(grad.double())
    return out.detach(), [leaf.grad for leaf in leaves]


def both(tensors, expert, grad, activation, *, keeps=True, into=None):
    plan = RoutingPlan(*engine.plan(expert, tensors[2].shape[0]))
    out, hidden = engine.forward(*tensors, plan, activation=activation, keeps_hidden=keeps)
    found = engine.backward(grad, *tensors, hidden, plan, activation=activation, needs=(True,) * 4, into=into)
    return out, found


@pytest.mark.parametrize("dtype", LIMITS, ids=lambda dtype: str(dtype)[6:])
@pytest.mark.parametrize("shape", SHAPES)
def test_values_and_gradients_are_those_of_the_reference(tier, shape, dtype):
    tensors, expert, grad = layer(shape, dtype)
    out, found = both(tensors, expert, grad, "silu")
    true_out, true_found = exact(tensors, expert, grad, "silu")
    assert distance(out, true_out) <= LIMITS[dtype][0]
    for name, got, truth in zip(("x", "weight", "gate_up", "down"), found, true_found, strict=True):
        assert distance(got, truth) <= LIMITS[dtype][1], name


@pytest.mark.parametrize("activation", ["gelu", "gelu_tanh", "relu"])
def test_every_activation_has_its_own_slope(tier, activation):
    tensors, expert, grad = layer("odd_sizes", torch.float32)
    out, found = both(tensors, expert, grad, activation)
    true_out, true_found = exact(tensors, expert, grad, activation)
    assert distance(out, true_out) <= 1e-6
    assert max(distance(got, truth) for got, truth in zip(found, true_found, strict=True)) <= 2e-6


@pytest.mark.parametrize("dtype", LIMITS, ids=lambda dtype: str(dtype)[6:])
def test_pre_activations_kept_or_made_again_give_the_same_bits(tier, dtype):
    tensors, expert, grad = layer("odd_sizes", dtype)
    kept, again = (both(tensors, expert, grad, "silu", keeps=keeps) for keeps in (True, False))
    assert torch.equal(kept[0], again[0])
    assert all(torch.equal(a, b) for a, b in zip(kept[1], again[1], strict=True))


@pytest.mark.parametrize("shape", ["ragged", "one_token", "two_busy_experts"])
def test_the_number_of_threads_changes_no_bit(tier, shape, monkeypatch):
    tensors, expert, grad = layer(shape, torch.float32)
    results = []
    for threads in (1, 2, 5):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        results.append(both(tensors, expert, grad, "silu"))
    for out, found in results[1:]:
        assert torch.equal(out, results[0][0])
        assert all(torch.equal(a, b) for a, b in zip(found, results[0][1], strict=True))


def test_gradients_are_added_to_given_buffers():
    tensors, expert, grad = layer("ragged", torch.float32)
    _, alone = both(tensors, expert, grad, "silu")
    into = torch.full_like(tensors[2], 2.0), torch.full_like(tensors[3], 3.0)
    _, found = both(tensors, expert, grad, "silu", into=into)
    assert found[2] is None
    assert found[3] is None
    torch.testing.assert_close(into[0], alone[2] + 2)
    torch.testing.assert_close(into[1], alone[3] + 3)


def test_an_expert_without_rows_gets_a_gradient_of_zero():
    tensors, _, grad = layer("two_busy_experts", torch.float32)
    _, found = both(tensors, torch.tensor([1, 3]).expand(300, 2).contiguous(), grad, "silu")
    assert found[2][0].eq(0).all()
    assert found[3][2].eq(0).all()


@pytest.mark.parametrize("is_turned", [False, True])
@pytest.mark.parametrize("dtype", LIMITS, ids=lambda dtype: str(dtype)[6:])
def test_grouped_products_and_their_gradients_are_those_of_the_reference(tier, dtype, is_turned):
    generator = torch.Generator().manual_seed(2)
    inputs, outputs, offsets = 300, 65, torch.tensor([0, 70, 70, 71, 110], dtype=torch.int32)
    rows, grad = (torch.randn(110, n, generator=generator).to(dtype) for n in (inputs, outputs))
    weight = (torch.randn(4, outputs, inputs, generator=generator) / inputs**0.5).to(dtype)
    weight = weight.mT.contiguous().mT if is_turned else weight
    out = engine.grouped_mm(rows, weight, offsets)
    assert distance(out, grouped_mm_ref(rows.double(), weight.double(), offsets)) <= LIMITS[dtype][0]
    truth = grouped_mm_backward_ref(grad.double(), rows.double(), weight.double(), offsets)[:2]
    for got, exact_one in zip(
        engine.grouped_mm_backward(grad, rows, weight, offsets, (True, True)), truth, strict=True
    ):
        assert distance(got, exact_one) <= LIMITS[dtype][1]


@pytest.mark.parametrize("dtype", LIMITS, ids=lambda dtype: str(dtype)[6:])
@pytest.mark.parametrize("sizes", [(2, 70, 4, 2, 24), (1, 300, 2, 2, 65), (1, 530, 2, 1, 34)])
def test_attention_and_its_gradients_are_those_of_the_reference(tier, dtype, sizes):
    sequences, positions, heads, groups, channels = sizes
    generator = torch.Generator().manual_seed(2)
    parts = [
        torch.randn(sequences, positions, many, channels, generator=generator).to(dtype)
        for many in (heads, groups, groups, heads)
    ]
    angle = torch.randn(sequences * positions, channels, generator=generator)
    turn = None if channels % 2 else (angle.cos(), angle.sin())
    out, scale = engine.attention(*parts[:3], turn, keeps_scale=True)
    exact_parts = [part.double() for part in parts]
    assert distance(out, attention_ref(*exact_parts[:3], turn)) <= LIMITS[dtype][0]
    found = engine.attention_backward(parts[3], *parts[:3], turn, out, scale, (True,) * 3)
    truth = attention_backward_ref(exact_parts[3], *exact_parts[:3], turn)
    for name, got, wanted in zip(("query", "key", "value"), found, truth, strict=True):
        assert distance(got, wanted) <= LIMITS[dtype][1], name


def test_one_long_sum_stays_within_float32(tier):
    generator = torch.Generator().manual_seed(0)
    x, weight = torch.randn(40, 6000, generator=generator), torch.ones(40, 1)
    gate_up = torch.randn(1, 8, 6000, generator=generator) / 6000**0.5
    down = torch.randn(1, 6000, 4, generator=generator) / 2
    tensors, expert = (x, weight, gate_up, down), torch.zeros(40, 1, dtype=torch.int64)
    out, _ = both(tensors, expert, torch.ones_like(x), "silu")
    assert distance(out, exact(tensors, expert, torch.ones_like(x), "silu")[0]) <= 1e-6


@pytest.mark.parametrize("ids", [torch.int32, torch.int64])
def test_the_plan_is_a_stable_counting_sort(ids):
    expert = torch.tensor([[2, 0], [9, 2], [-1, 0], [2, 2]], dtype=ids)
    rows, row_of, offsets = engine.plan(expert, 3)
    assert offsets.tolist() == [0, 2, 2, 6]
    assert rows.tolist() == [0, 2, 0, 1, 3, 3, 0, 0]
    assert row_of.tolist() == [[2, 0], [-1, 3], [-1, 1], [4, 5]]


def test_infinite_and_nan_tokens_stay_in_their_own_rows(tier):
    tensors, _, _ = layer("two_busy_experts", torch.float32)
    clean, expert = tensors[0].clone(), torch.tensor([1, 3]).expand(300, 2).contiguous()
    tensors[0][17], tensors[0][40, 3] = torch.nan, torch.inf
    plan = RoutingPlan(*engine.plan(expert, 4))
    out, _ = engine.forward(*tensors, plan, activation="silu", keeps_hidden=False)
    expected, _ = engine.forward(clean, *tensors[1:], plan, activation="silu", keeps_hidden=False)
    others = torch.tensor([row for row in range(300) if row not in (17, 40)])
    assert torch.equal(out[others], expected[others])
    assert out[17].isnan().all()
    assert not out[40].isfinite().all()

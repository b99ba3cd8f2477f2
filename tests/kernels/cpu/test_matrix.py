"""Bfloat16 on the matrix unit and in pairs, both emulated; all around these instructions is what runs with them."""

import ctypes

import pytest
import torch
from workbench_kernels.attention_reference import attention_backward_ref, attention_ref
from workbench_kernels.cpu import build, engine, tokens
from workbench_kernels.reference import grouped_mm_backward_ref, grouped_mm_ref, moe_mlp_ref, plan_ref

OUT, GRADIENT = 3.5e-3, 6e-3  # relative Frobenius distance to float64
# tokens, width, hidden, experts, choices: whole tiles, tails of every kind, several copies of weights, few rows.
SHAPES = {
    "whole_tiles": (96, 64, 64, 1, 1),
    "ragged": (150, 40, 24, 5, 2),
    "odd_sizes": (70, 300, 65, 6, 3),
    "smaller_than_a_tile": (33, 17, 9, 3, 1),
    "deep": (90, 1100, 70, 3, 2),
    "wide_hidden": (100, 66, 1090, 4, 2),
    "few_tokens": (7, 64, 32, 4, 2),
    "one_token": (1, 256, 512, 16, 2),
    "one_busy_expert": (2100, 48, 40, 3, 1),
}


def counts(amx):
    numbers = (ctypes.c_int64 * 4)()
    amx.workbench_amx_counts(numbers)
    return dict(zip(("loads", "stores", "products", "sessions"), numbers, strict=True))


def distance(found, exact):
    return float((found.double() - exact).norm() / exact.norm().clamp_min(1e-30))


def layer(shape):
    tokens, width, hidden, experts, choices = SHAPES[shape]
    generator = torch.Generator().manual_seed(5)

    def normal(*sizes):
        return torch.randn(sizes, generator=generator)

    expert = torch.rand(tokens, experts, generator=generator).topk(choices).indices
    if shape == "one_busy_expert":
        expert[:] = 1
    elif shape != "whole_tiles":
        expert[torch.rand(tokens, choices, generator=generator) < 0.1] = -1
        expert[torch.rand(tokens, choices, generator=generator) < 0.1] = experts + 3
    tensors = (
        normal(tokens, width).bfloat16(),
        torch.rand(tokens, choices, generator=generator),
        (normal(experts, 2 * hidden, width) / width**0.5).bfloat16(),
        (normal(experts, width, hidden) / hidden**0.5).bfloat16(),
    )
    return tensors, plan_ref(expert, experts), normal(tokens, width).bfloat16()


def backward(tensors, plan, grad, hidden, activation, into=None):
    return engine.backward(grad, *tensors, hidden, plan, activation=activation, needs=(True,) * 4, into=into)


def both(tensors, plan, grad, activation="silu"):
    out, hidden = engine.forward(*tensors, plan, activation=activation, keeps_hidden=True)
    return out, hidden, backward(tensors, plan, grad, hidden, activation)


def exact(tensors, plan, grad, activation="silu"):
    leaves = [tensor.double().requires_grad_() for tensor in tensors]
    out = moe_mlp_ref(leaves[0], plan, *leaves[1:], activation=activation)
    out.backward(grad.double())
    return out.detach(), [leaf.grad for leaf in leaves]


def close(found, truth):
    assert distance(found[0], truth[0]) <= OUT
    for name, got, expected in zip(("x", "weight", "gate_up", "down"), found[-1], truth[-1], strict=True):
        assert distance(got, expected) <= GRADIENT, name


@pytest.mark.parametrize("shape", SHAPES)
def test_values_and_gradients_are_those_of_the_reference(unit, shape):
    arguments = layer(shape)
    close(both(*arguments), exact(*arguments))


@pytest.mark.parametrize("shape", ["ragged", "one_token"])
def test_every_layer_meets_the_matrix_unit(amx, shape):
    counts(amx)
    both(*layer(shape))
    # up to four rows of an expert pass through the vector registers on the way out, and backward through the unit.
    assert counts(amx)["products"] > 0


@pytest.mark.parametrize("activation", ["gelu_tanh", "gelu", "relu"])
def test_every_activation_is_the_reference_s(unit, activation):
    arguments = layer("odd_sizes")
    close(both(*arguments, activation), exact(*arguments, activation))


def test_the_coarse_sigmoid_stays_finite_for_gates_of_any_size(unit):
    (x, weight, gate_up, down), plan, grad = layer("ragged")
    close(both((x * 3000, weight, gate_up, down), plan, grad), exact((x * 3000, weight, gate_up, down), plan, grad))


@pytest.mark.parametrize("shape", ["odd_sizes", "deep", "few_tokens"])
def test_threads_and_kept_hidden_change_no_bit(unit, monkeypatch, shape):
    tensors, plan, grad = layer(shape)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    out, hidden, found = both(tensors, plan, grad)
    used = int(plan.offsets[-1])
    for threads in (1, 2, 3):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        again, hidden_again, found_again = both(tensors, plan, grad)
        assert torch.equal(again, out)
        assert torch.equal(hidden_again.flatten()[: used * hidden.shape[1]], hidden.flatten()[: used * hidden.shape[1]])
        made_again = backward(tensors, plan, grad, tensors[0].new_empty(0), "silu")
        for expected, kept, made in zip(found, found_again, made_again, strict=True):
            assert torch.equal(kept, expected)
            assert torch.equal(made, expected)


def test_weight_gradients_are_added_to_what_is_there(unit):
    tensors, plan, grad = layer("ragged")
    _, hidden, found = both(tensors, plan, grad)
    into = torch.ones_like(tensors[2]), torch.ones_like(tensors[3])
    dx, dweight, *none = backward(tensors, plan, grad, hidden, "silu", into=into)
    assert none == [None, None]
    assert torch.equal(dx, found[0])
    assert torch.equal(dweight, found[1])
    for got, alone in zip(into, found[2:], strict=True):
        assert distance(got, alone.double() + 1) <= OUT


def test_infinite_weights_of_one_expert_reach_no_other(unit):
    (x, weight, gate_up, down), plan, grad = layer("ragged")
    clean = both((x, weight, gate_up, down), plan, grad)[2]
    gate_up, down = gate_up.clone(), down.clone()
    gate_up[0], down[0] = torch.inf, torch.inf
    broken = both((x, weight, gate_up, down), plan, grad)[2]
    assert torch.equal(broken[2][1:], clean[2][1:])
    assert torch.equal(broken[3][1:], clean[3][1:])


@pytest.mark.parametrize("is_turned", [False, True])
@pytest.mark.parametrize(("inputs", "outputs", "sizes"), [(40, 24, (100, 0, 50)), (33, 65, (1, 63)), (96, 64, (64,))])
def test_grouped_products_and_their_gradients_are_the_reference_s(unit, inputs, outputs, sizes, is_turned):
    generator = torch.Generator().manual_seed(2)
    offsets = torch.tensor([0, *torch.tensor(sizes).cumsum(0)], dtype=torch.int32)
    rows, grad = (torch.randn(sum(sizes), n, generator=generator).bfloat16() for n in (inputs, outputs))
    weight = (torch.randn(len(sizes), outputs, inputs, generator=generator) / inputs**0.5).bfloat16()
    weight = weight.mT.contiguous().mT if is_turned else weight
    found = engine.grouped_mm(rows, weight, offsets)
    assert distance(found, grouped_mm_ref(rows.double(), weight.double(), offsets)) <= OUT
    truth = grouped_mm_backward_ref(grad.double(), rows.double(), weight.double(), offsets)[:2]
    for got, expected in zip(engine.grouped_mm_backward(grad, rows, weight, offsets, (True, True)), truth, strict=True):
        assert distance(got, expected) <= OUT


@pytest.mark.parametrize("shape", ["ragged", "odd_sizes", "deep", "one_busy_expert", "few_tokens"])
def test_tokens_and_weights_in_float32_are_rounded_where_they_are_read(unit, shape):
    (x, weight, gate_up, down), plan, grad = layer(shape)
    out, hidden, found = both((x, weight, gate_up, down), plan, grad)
    wide, mixed = (x.float(), weight, gate_up.float(), down.float()), {"products": torch.bfloat16}
    again, kept = engine.forward(*wide, plan, activation="silu", keeps_hidden=True, **mixed)
    assert again.dtype == kept.dtype == torch.bfloat16
    assert torch.equal(again, out)
    used = int(plan.offsets[-1])
    assert torch.equal(kept.flatten()[: used * kept.shape[1]], hidden.flatten()[: used * hidden.shape[1]])
    needs = (True,) * 4
    own = engine.backward(grad, *wide, kept, plan, activation="silu", needs=needs, into=None, **mixed)
    assert all(got.dtype == torch.float32 for got in own)
    for got, narrow in zip(own, found, strict=True):
        assert torch.equal(got.to(narrow.dtype), narrow)
    into = torch.ones_like(wide[2]), torch.ones_like(wide[3])
    engine.backward(grad, *wide, kept, plan, activation="silu", needs=needs, into=into, **mixed)
    for got, alone in zip(into, own[2:], strict=True):
        assert distance(got, alone.double() + 1) <= 1e-6


@pytest.mark.parametrize("is_turned", [False, True])
@pytest.mark.parametrize("has_wide_rows", [False, True])
def test_grouped_products_round_what_is_float32(unit, has_wide_rows, is_turned):
    generator = torch.Generator().manual_seed(3)
    offsets = torch.tensor([0, 70, 70, 101], dtype=torch.int32)
    rows, grad = (torch.randn(101, n, generator=generator) for n in (45, 70))
    weight = torch.randn(3, 70, 45, generator=generator)
    weight = weight.mT.contiguous().mT if is_turned else weight
    rows, grad = rows if has_wide_rows else rows.bfloat16(), grad.bfloat16()
    narrow = rows.bfloat16(), weight.bfloat16()
    mixed = {"products": torch.bfloat16}
    assert torch.equal(engine.grouped_mm(rows, weight, offsets, **mixed), engine.grouped_mm(*narrow, offsets))
    found = engine.grouped_mm_backward(grad, rows, weight, offsets, (True, True), **mixed)
    assert [got.dtype for got in found] == [rows.dtype, torch.float32]
    for got, expected in zip(found, engine.grouped_mm_backward(grad, *narrow, offsets, (True, True)), strict=True):
        assert torch.equal(got.bfloat16(), expected)


def attended(sizes, threads, monkeypatch):
    """Output and gradients, and their truth."""
    sequences, positions, heads, groups, channels = sizes
    generator = torch.Generator().manual_seed(2)
    many = (heads, groups, groups, heads)
    parts = [torch.randn(sequences, positions, n, channels, generator=generator).bfloat16() for n in many]
    angle = torch.randn(sequences * positions, channels, generator=generator)
    turn = None if channels % 2 else (angle.cos(), angle.sin())
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    out, scale = engine.attention(*parts[:3], turn, keeps_scale=True)
    found = engine.attention_backward(parts[3], *parts[:3], turn, out, scale, (True,) * 3)
    exact = [part.double() for part in parts]
    truth = attention_ref(*exact[:3], turn), *attention_backward_ref(exact[3], *exact[:3], turn)
    return (out, *found), truth


@pytest.mark.parametrize("sizes", [(2, 70, 4, 2, 24), (1, 300, 2, 2, 65), (1, 530, 2, 1, 34)])
def test_attention_and_its_gradients_are_the_reference_s(unit, sizes, monkeypatch):
    found, truth = attended(sizes, 1, monkeypatch)
    limits = (OUT, GRADIENT, GRADIENT, GRADIENT)
    for name, got, wanted, limit in zip(("out", "query", "key", "value"), found, truth, limits, strict=True):
        assert distance(got, wanted) <= limit, name
    again, _ = attended(sizes, 3, monkeypatch)
    assert all(torch.equal(a, b) for a, b in zip(found, again, strict=True))


def test_all_products_of_attention_meet_the_matrix_unit(amx, monkeypatch):
    counts(amx)
    attended((1, 64, 1, 1, 32), 1, monkeypatch)
    # three pairs of panels that see each other, two products forward and five backward, each of 32 x 32 x 32.
    assert counts(amx)["products"] == 3 * (2 + 5) * 4


def test_a_product_costs_one_load_of_a_tile(amx):
    tensors, plan, grad = layer("whole_tiles")
    counts(amx)
    both(tensors, plan, grad)
    found = counts(amx)
    # 96 tokens fill whole panels: 18 T D F multiply-adds of two, 16 * 16 * 32 of them in a product.
    assert found["products"] == 9 * 96 * 64 * 64 // (16 * 16 * 32)
    assert found["loads"] == found["products"]


def test_the_real_build_multiplies_on_the_matrix_unit(tmp_path, compiled):
    units = ("-mamx-tile", "-mamx-bf16", "-DTIER=amx")
    compiled("-O0", "-S", *units, "-o", tmp_path / "amx.s", build.SOURCE / "amx.cpp")
    text = (tmp_path / "amx.s").read_text()
    for instruction in ("ldtilecfg", "tileloadd", "tdpbf16ps", "tilestored", "tilerelease"):
        assert instruction in text
    assert "vdpbf16ps" not in text


def test_the_real_build_multiplies_pairs(tmp_path, compiled):
    compiled("-O0", "-S", "-mavx512bf16", "-DTIER=bf16", "-o", tmp_path / "bf16.s", build.SOURCE / "bf16.cpp")
    text = (tmp_path / "bf16.s").read_text()
    assert "vdpbf16ps" in text
    assert "tdpbf16ps" not in text


def test_a_single_token_gets_the_bits_that_the_layer_gives_it(unit):
    (x, weight, gate_up, down), plan, _ = layer("one_token")
    wanted, _ = engine.forward(x, weight, gate_up, down, plan, activation="silu", keeps_hidden=False)
    expert = torch.full(plan.row_of.shape, -1)
    offsets = plan.offsets.tolist()
    for slot, row in enumerate(plan.row_of[0].tolist()):
        if row >= 0:
            expert[0, slot] = next(e for e in range(len(down)) if offsets[e] <= row < offsets[e + 1])
    assert torch.equal(tokens.experts(x, weight, gate_up, down, expert), wanted)
    assert wanted.any()

"""Bfloat16 on the matrix unit and in pairs, both emulated; all around these instructions is what runs with them."""

import ctypes
import platform
import subprocess

import pytest
import torch
from workbench_kernels.cpu import build, engine, library, tokens
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
FLAGS = (
    "-std=c++17",
    "-fPIC",
    "-w",
    "-ffp-contract=fast",
    "-mfma",
    "-mf16c",
    "-mprefer-vector-width=512",
)
UNITS = {"amx": 4, "bf16": 3}  # and their tiers
AVX512 = ("-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl")
# the other instruction sets have tests of their own; here their names alone are needed.
OTHERS = "\n".join(
    f'extern "C" int workbench_{tier}_{call}() {{ return 0; }}'
    for tier in ("portable", "avx2", "avx512")
    for call in ("moe", "grouped", "norm", "entropy", "topk", "attention", "choice", "experts", "linear")
)


def compiler():
    found = build.find_compiler()
    if found is None or platform.machine().lower() not in {"x86_64", "amd64"}:
        pytest.skip("these instructions are compiled by a C++ compiler on x86-64")
    return found


def compiled(*arguments):
    subprocess.run([compiler(), *FLAGS, *AVX512, *map(str, arguments)], check=True, capture_output=True)


@pytest.fixture(scope="module")
def emulated(tmp_path_factory):
    folder = tmp_path_factory.mktemp("matrix")
    units = []
    for unit in UNITS:
        emulates = ("-O1", "-DWORKBENCH_EMULATES_AMX", f"-DTIER={unit}", "-c", "-o", folder / f"{unit}.o")
        command = [compiler(), *FLAGS, *AVX512, *map(str, emulates), str(build.SOURCE / f"{unit}.cpp")]
        units.append(subprocess.Popen(command))
    (folder / "others.cpp").write_text(OTHERS)
    own = [build.SOURCE / name for name in ("main.cpp", "step.cpp", "plan.cpp")]
    assert [unit.wait() for unit in units] == [0, 0]
    objects = [folder / f"{unit}.o" for unit in UNITS]
    compiled("-O1", "-shared", "-o", folder / "matrix.so", folder / "others.cpp", *own, *objects, "-lpthread")
    found = ctypes.CDLL(str(folder / "matrix.so"))
    if found.workbench_best_tier() < UNITS["bf16"] - 1:
        pytest.skip("the emulation needs AVX-512")
    return found


def use(emulated, unit, monkeypatch):
    functions = {name: emulated[name] for name in ("workbench_moe", "workbench_grouped", "workbench_experts")}
    for module in (engine, tokens):
        monkeypatch.setattr(module, "kernels", lambda: library.Kernels(emulated, functions, UNITS[unit], "emulated"))
    return emulated


@pytest.fixture(params=UNITS)
def unit(request, emulated, monkeypatch):
    use(emulated, request.param, monkeypatch)
    return request.param


@pytest.fixture
def amx(emulated, monkeypatch):
    return use(emulated, "amx", monkeypatch)


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


def test_a_product_costs_one_load_of_a_tile(amx):
    tensors, plan, grad = layer("whole_tiles")
    counts(amx)
    both(tensors, plan, grad)
    found = counts(amx)
    # 96 tokens fill whole panels: 18 T D F multiply-adds of two, 16 * 16 * 32 of them in a product.
    assert found["products"] == 9 * 96 * 64 * 64 // (16 * 16 * 32)
    assert found["loads"] == found["products"]


def test_the_real_build_multiplies_on_the_matrix_unit(tmp_path):
    units = ("-mamx-tile", "-mamx-bf16", "-DTIER=amx")
    compiled("-O0", "-S", *units, "-o", tmp_path / "amx.s", build.SOURCE / "amx.cpp")
    text = (tmp_path / "amx.s").read_text()
    for instruction in ("ldtilecfg", "tileloadd", "tdpbf16ps", "tilestored", "tilerelease"):
        assert instruction in text
    assert "vdpbf16ps" not in text


def test_the_real_build_multiplies_pairs(tmp_path):
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

"""A linear map against float64 and PyTorch's: values, gradients and dtypes, with and without autocast."""

import importlib

import pytest
import torch
import torch.nn.functional as F
from workbench_kernels import backend_of, linear
from workbench_kernels.cpu import engine

module = importlib.import_module("workbench_kernels.linear")
NEEDS = pytest.mark.skipif(backend_of("cpu").name != "cpp", reason="no C++ kernels here")


@pytest.fixture(params=["where it is faster", "always"])
def ours(request, monkeypatch):
    if request.param == "always" and backend_of("cpu").name == "cpp":
        monkeypatch.setattr(engine, "outruns_pytorch", lambda: True)


def drawn(*shape, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape))).to(dtype).requires_grad_()


@pytest.mark.parametrize("has_bias", [False, True])
@pytest.mark.parametrize("shape", [(1, 33, 7), (31, 16, 16), (32, 16, 16), (100, 40, 65), (4, 30, 300, 24)])
def test_it_is_the_product_and_its_gradients(ours, shape, has_bias, distance):
    *rows, inputs, outputs = shape
    leaves = [drawn(*rows, inputs), drawn(outputs, inputs), *([drawn(outputs)] if has_bias else [])]
    exact = [leaf.detach().double().requires_grad_() for leaf in leaves]
    out, truth = linear(*leaves), F.linear(*exact)
    assert out.shape == truth.shape
    assert distance(out, truth) <= 1e-6
    upstream = drawn(*rows, outputs).detach()
    found = torch.autograd.grad(out, leaves, upstream)
    for got, expected in zip(found, torch.autograd.grad(truth, exact, upstream.double()), strict=True):
        assert got.shape == expected.shape
        assert distance(got, expected) <= 2e-6
    with torch.no_grad():
        assert distance(linear(*leaves), truth) <= 1e-6


def test_no_rows_give_no_rows_and_a_gradient_of_zero(ours):
    weight = drawn(3, 8)
    out = linear(torch.empty(0, 8), weight)
    assert out.shape == (0, 3)
    out.sum().backward()
    assert not weight.grad.any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_autocast_multiplies_in_bfloat16_and_gives_gradients_of_the_inputs_dtypes(ours, dtype, distance):
    x, weight = drawn(70, 48, dtype=dtype), drawn(33, 48)
    exact = [leaf.detach().bfloat16().double().requires_grad_() for leaf in (x, weight)]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = linear(x, weight)
    truth = F.linear(*exact)
    assert out.dtype == torch.bfloat16
    assert distance(out, truth) <= 2.5e-3
    upstream = drawn(70, 33, dtype=torch.bfloat16).detach()
    found = torch.autograd.grad(out, (x, weight), upstream)
    assert [got.dtype for got in found] == [dtype, torch.float32]
    for got, expected in zip(found, torch.autograd.grad(truth, exact, upstream.double()), strict=True):
        assert distance(got, expected) <= 2.5e-3


@NEEDS
def test_gradients_of_weights_under_autocast_are_not_rounded_where_the_engine_reads_float32(distance):
    if not engine.narrows_to(torch.bfloat16):
        pytest.skip("this processor multiplies bfloat16 no faster")
    x, weight = drawn(64, 48), drawn(33, 48)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = linear(x, weight)
    upstream = drawn(64, 33, dtype=torch.bfloat16).detach()
    got = torch.autograd.grad(out, weight, upstream)[0]
    truth = upstream.double().t() @ x.detach().bfloat16().double()
    # a gradient that passed through bfloat16 would be 1.7e-3 away.
    assert distance(got, truth) <= 1e-6 if engine.outruns_pytorch() else distance(got, truth) <= 2.5e-3


@NEEDS
@pytest.mark.parametrize("is_faster", [False, True])
def test_the_kernels_are_used_where_they_are_faster_and_only_there(monkeypatch, is_faster):
    monkeypatch.setattr(engine, "outruns_pytorch", lambda: is_faster)
    used = []
    real = module.grouped_mm
    monkeypatch.setattr(module, "grouped_mm", lambda *a, **k: used.append(a[0].shape) or real(*a, **k))
    linear(drawn(64, 16), drawn(8, 16))
    assert used == ([torch.Size([64, 16])] if is_faster else [])
    used.clear()
    linear(drawn(64, 16, dtype=torch.float64), drawn(8, 16, dtype=torch.float64))
    linear(drawn(31, 16), drawn(8, 16))
    linear(drawn(64, 16, dtype=torch.bfloat16), drawn(8, 16, dtype=torch.bfloat16))
    assert used == []

"""Which kernels run where, and the words for it."""

import importlib.util
import logging
from types import SimpleNamespace

import pytest
import torch
from workbench_kernels import backend, backend_of
from workbench_kernels.backend import Backend, autocast_inputs, engine_of, step_of, tokens_of


@pytest.fixture(autouse=True)
def a_fresh_choice(monkeypatch):
    """No variable, and nothing remembered from another test or for the next."""
    monkeypatch.delenv("WORKBENCH_KERNELS", raising=False)
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    backend._choose.cache_clear()
    yield
    backend._choose.cache_clear()


@pytest.fixture
def library(monkeypatch):
    """A compiled library that is there, or that says why it is not."""

    def answers(is_there: bool, reason: str) -> None:
        stub = SimpleNamespace(availability=lambda: (is_there, reason))
        monkeypatch.setattr(backend.importlib, "import_module", lambda name: stub)

    return answers


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_cpu_runs_the_compiled_kernels(library, dtype):
    library(True, "AVX-512 kernels")
    assert backend_of("cpu", dtype) == Backend("cpp", "AVX-512 kernels")


def test_float64_has_no_compiled_kernels_and_nothing_is_wrong_with_that(library, caplog):
    library(True, "AVX-512 kernels")
    assert backend_of("cpu", torch.float64) == Backend(
        "torch", "PyTorch products per expert: no compiled kernel computes in float64"
    )
    assert caplog.records == []


def test_a_slower_path_is_said_once(library, caplog):
    library(False, "no C++ compiler was found")
    with caplog.at_level(logging.WARNING):
        first, second = backend_of("cpu"), backend_of("cpu")
    reason = "PyTorch products per expert, which is slower: no C++ compiler was found"
    assert first == second == Backend("torch", reason)
    assert [record.getMessage() for record in caplog.records] == [
        "experts run on PyTorch products on cpu in float32: no C++ compiler was found"
    ]


def test_a_gpu_runs_triton_from_ampere_on(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index=None: (9, 0) if index == 1 else (7, 5))
    assert backend_of("cuda:1", torch.bfloat16) == Backend("triton", "Triton kernels for a GPU of capability 9.0")
    old = backend_of("cuda:0", torch.bfloat16)
    assert (old.name, old.reason.endswith("need a GPU of capability 8.0, this one has 7.5")) == ("torch", True)


def test_a_gpu_without_triton_says_so(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert backend_of("cuda") == Backend(
        "torch", "PyTorch products per expert, which is slower: Triton is not installed"
    )


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a CUDA GPU")
def test_a_gpu_that_is_not_there_is_not_asked():
    assert backend_of("cuda").reason.endswith("no CUDA GPU is visible to torch")


def test_another_device_runs_pytorch():
    assert backend_of("meta") == Backend("torch", "PyTorch products per expert: meta has no kernels of its own")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("device", ["cpu", "cuda", "meta"])
def test_pytorch_may_be_asked_for_everywhere(monkeypatch, device, dtype):
    monkeypatch.setenv("WORKBENCH_KERNELS", "torch")
    assert backend_of(device, dtype) == Backend("torch", "PyTorch products per expert, as WORKBENCH_KERNELS=torch asks")


def test_compiled_kernels_may_be_asked_for(monkeypatch, library):
    library(True, "AVX2 kernels")
    monkeypatch.setenv("WORKBENCH_KERNELS", "cpp")
    assert backend_of("cpu") == Backend("cpp", "AVX2 kernels, as WORKBENCH_KERNELS=cpp asks")


@pytest.mark.parametrize("wanted", ["", "cuda", "Torch"])
def test_the_variable_may_not_ask_for_what_there_is_not(monkeypatch, wanted):
    monkeypatch.setenv("WORKBENCH_KERNELS", wanted)
    with pytest.raises(ValueError) as error:
        backend_of("cpu")
    assert str(error.value) == (
        f"WORKBENCH_KERNELS must be torch, cpp or triton, got {wanted!r}; unset it to let the device decide"
    )


@pytest.mark.parametrize(
    ("wanted", "device", "dtype", "home"),
    [
        ("cpp", "cuda", "float32", "cpu"),
        ("cpp", "cpu", "float64", "cpu"),
        ("triton", "cpu", "float32", "cuda"),
        ("triton", "cuda", "float64", "cuda"),
    ],
)
def test_the_variable_may_not_ask_for_it_elsewhere(monkeypatch, wanted, device, dtype, home):
    monkeypatch.setenv("WORKBENCH_KERNELS", wanted)
    with pytest.raises(ValueError) as error:
        backend_of(device, getattr(torch, dtype))
    assert str(error.value) == (
        f"WORKBENCH_KERNELS={wanted} runs on {home} in float32, bfloat16 and float16, "
        f"got {device} and {dtype}; unset it, or move or cast the tensors"
    )


def test_the_variable_is_refused_with_the_reason_where_there_is_no_library(monkeypatch, library):
    library(False, "the C++ compiler failed")
    monkeypatch.setenv("WORKBENCH_KERNELS", "cpp")
    with pytest.raises(ValueError) as error:
        backend_of("cpu")
    assert str(error.value) == (
        "WORKBENCH_KERNELS=cpp cannot run here: the C++ compiler failed; unset it, or put that right"
    )


def test_triton_is_interpreted_on_a_cpu(monkeypatch):
    monkeypatch.setenv("WORKBENCH_KERNELS", "triton")
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    assert backend_of("cpu").reason == "Triton kernels in its interpreter, as WORKBENCH_KERNELS=triton asks"


def test_an_engine_is_a_module_with_the_functions_of_one():
    engine = engine_of(Backend("torch", "any"))
    assert engine.__name__ == "workbench_kernels.pytorch"
    assert {"forward", "backward", "plan", "grouped_mm", "grouped_mm_backward"} <= set(vars(engine))


def test_single_tokens_have_modules_of_their_own_where_there_are_compiled_kernels():
    assert tokens_of(Backend("torch", "any")) is None
    assert step_of(Backend("triton", "any")) is None
    assert {"experts", "linear", "ready_choice", "token_attention"} <= set(vars(tokens_of(Backend("cpp", "any"))))
    assert "Step" in vars(step_of(Backend("cpp", "any")))


def test_inputs_are_cast_where_autocast_is_on():
    tensors = torch.ones(1), torch.ones(1, dtype=torch.float16), torch.ones(1, dtype=torch.float64)
    assert autocast_inputs(*tensors) == tensors
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = [tensor.dtype for tensor in autocast_inputs(*tensors)]
    assert cast == [torch.bfloat16, torch.bfloat16, torch.float64]

"""Which kernels run where, and the words for it."""

import pytest
import torch
from workbench_kernels import backend_of
from workbench_kernels.backend import autocast_inputs


def test_it_names_the_kernels_and_the_reason(monkeypatch):
    monkeypatch.delenv("WORKBENCH_KERNELS", raising=False)
    backend = backend_of("cpu")
    assert backend.name == "torch"
    assert backend.reason == "grouped PyTorch products per expert on cpu; no compiled kernel in this version"
    assert backend_of(torch.device("cuda", 1)).reason.startswith("grouped PyTorch products per expert on cuda;")


def test_the_variable_may_say_what_is_the_case(monkeypatch):
    monkeypatch.setenv("WORKBENCH_KERNELS", "torch")
    assert backend_of("cpu").name == "torch"


@pytest.mark.parametrize("wanted", ["triton", "", "cuda"])
def test_the_variable_may_not_ask_for_what_there_is_not(monkeypatch, wanted):
    monkeypatch.setenv("WORKBENCH_KERNELS", wanted)
    with pytest.raises(ValueError) as error:
        backend_of("cpu")
    assert str(error.value) == (
        f"WORKBENCH_KERNELS must be torch, got {wanted!r}; this version has no Triton kernels yet, unset it"
    )


def test_inputs_are_cast_where_autocast_is_on():
    tensors = torch.ones(1), torch.ones(1, dtype=torch.float16), torch.ones(1, dtype=torch.float64)
    assert autocast_inputs(*tensors) == tensors
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = [tensor.dtype for tensor in autocast_inputs(*tensors)]
    assert cast == [torch.bfloat16, torch.bfloat16, torch.float64]

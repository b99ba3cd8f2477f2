"""The dtype of the products follows the machine, and says why."""

from pathlib import Path

import pytest
import torch

from workbench.train import precision
from workbench.train.precision import FULL_PRECISION, autocast, has_amx, precision_of


def test_amx_is_what_the_processor_says():
    info = Path("/proc/cpuinfo")
    flags = {flag for line in info.read_text().splitlines() if line.startswith("flags") for flag in line.split()}
    assert has_amx() == ("amx_bf16" in flags)


@pytest.mark.parametrize(("amx", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_a_cpu_gets_bfloat16_only_where_it_is_fast(amx, dtype, monkeypatch):
    monkeypatch.setattr(precision, "has_amx", lambda: amx)
    found = precision_of("cpu")
    assert found.dtype == dtype
    assert found.reason in ("this CPU multiplies bfloat16 in AMX tiles", "bfloat16 is not faster on this cpu")


@pytest.mark.parametrize(("capability", "dtype"), [((8, 0), torch.bfloat16), ((7, 5), torch.float32)])
def test_a_gpu_gets_bfloat16_from_ampere_on(capability, dtype, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    assert precision_of("cuda").dtype == dtype


def test_what_is_asked_for_wins():
    assert precision_of("cpu", "bfloat16") == (torch.bfloat16, "asked for")
    assert precision_of("cpu", "float32") == (torch.float32, "asked for")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_products_inside_the_block_have_the_dtype(dtype):
    x = torch.ones(2, 2)
    with autocast(torch.device("cpu"), dtype):
        assert (x @ x).dtype == dtype
    assert (x @ x).dtype == torch.float32
    assert FULL_PRECISION.dtype == torch.float32

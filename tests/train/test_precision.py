"""The dtype of the products follows the machine, and says why."""

from pathlib import Path

import pytest
import torch

from workbench.train import precision
from workbench.train.precision import FULL_PRECISION, autocast, bfloat16_unit, precision_of

PROCESSORS = {
    "Intel with AMX": ("GenuineIntel", "avx512f avx512_bf16 amx_bf16 amx_tile", "AMX tiles"),
    "Intel with pairs": ("GenuineIntel", "avx512f avx512_bf16", None),
    "AMD with pairs": ("AuthenticAMD", "avx512f avx512_bf16", "AVX512-BF16 pairs"),
    "AMD without": ("AuthenticAMD", "avx2 fma", None),
}


@pytest.fixture
def anew():
    bfloat16_unit.cache_clear()
    yield
    bfloat16_unit.cache_clear()


@pytest.mark.parametrize("name", PROCESSORS)
def test_a_cpu_gets_bfloat16_only_where_it_is_fast(name, anew, monkeypatch, tmp_path):
    vendor, flags, unit = PROCESSORS[name]
    info = tmp_path / "cpuinfo"
    info.write_text(f"processor\t: 0\nvendor_id\t: {vendor}\nflags\t\t: fpu sse {flags}\n")
    monkeypatch.setattr(precision, "_CPUINFO", info)
    found = precision_of("cpu")
    assert found.dtype == (torch.float32 if unit is None else torch.bfloat16)
    assert found.reason == f"this CPU multiplies bfloat16 in {unit}" if unit else "bfloat16 is not faster on this cpu"


def test_a_system_that_does_not_tell_gets_float32(anew, monkeypatch):
    monkeypatch.setattr(precision, "_CPUINFO", Path("/nowhere/cpuinfo"))
    assert bfloat16_unit() is None


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

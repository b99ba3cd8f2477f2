"""The doctor tells the truth about this machine."""

import json
import os
import platform
import shutil
import sys
from importlib.metadata import version
from pathlib import Path

import psutil
import pytest
import torch
from workbench_kernels.backend import Backend

from workbench import doctor
from workbench.doctor import examine
from workbench.train import precision


def test_everything_survives_json():
    found = examine()
    assert json.loads(json.dumps(found)) == found


def test_the_processor_is_the_one_of_this_machine():
    cpu = examine()["cpu"]
    assert cpu["cores_usable"] == len(psutil.Process().cpu_affinity())
    assert cpu["torch_threads"] == torch.get_num_threads()
    flags = {
        word for line in Path("/proc/cpuinfo").read_text().splitlines() if "flags" in line for word in line.split()
    }
    assert ("AMX" in cpu["bfloat16"]) == ("amx_bf16" in flags)
    assert ("AVX512" in cpu["instruction_set"]) <= ("avx512f" in flags)
    assert cpu["model"] in Path("/proc/cpuinfo").read_text()


def test_memory_and_disk_are_in_bytes():
    memory = examine()["memory"]
    assert memory["total_bytes"] == psutil.virtual_memory().total
    assert 0 < memory["available_bytes"] <= memory["total_bytes"]
    assert memory["disk_free_here_bytes"] == pytest.approx(shutil.disk_usage(Path.cwd()).free, rel=0.1)


def test_versions_are_the_installed_ones():
    found = examine()
    assert found["workbench"]["python"] == platform.python_version()
    assert found["packages"]["torch"] == version("torch")
    assert found["packages"]["zarr"] == version("zarr")


def test_without_triton_it_says_that_nothing_is_lost(monkeypatch):
    monkeypatch.setitem(sys.modules, "triton", None)

    def missing(package: str) -> str:
        if package == "triton":
            raise doctor.PackageNotFoundError(package)
        return version(package)

    monkeypatch.setattr(doctor, "version", missing)
    found = examine()
    assert found["triton"].startswith("not installed; it exists for Linux x86-64 only")
    assert found["packages"]["triton"] == "not installed"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_plan_names_the_kernels_and_why(monkeypatch, dtype):
    monkeypatch.setattr(precision, "bfloat16_unit", lambda: "AMX tiles" if dtype == torch.bfloat16 else None)
    asked = []
    monkeypatch.setattr(doctor, "backend_of", lambda *where: asked.append(where) or Backend("cpp", "AVX2 is here"))
    assert examine()["plan"][0]["kernels"] == "cpp: AVX2 is here"
    assert asked[0] == ("cpu", dtype)
    assert "written in it" in examine()["triton"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a CUDA GPU")
def test_without_a_gpu_there_is_one_plan_and_the_reason(monkeypatch):
    found = examine()
    assert found["gpu"] == []
    assert [plan["device"] for plan in found["plan"]] == ["cpu"]
    if torch.version.cuda is None:
        assert found["cuda"].startswith("this torch is built without CUDA")
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    assert examine()["cuda"] == "torch is built for CUDA 12.8, and finds no GPU"


def test_a_gpu_is_listed_with_its_memory_and_a_plan_of_its_own(monkeypatch):
    class Properties:
        total_memory = 80 * 2**30

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: "A GPU")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: Properties())
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index=0: (9, 0))
    found = examine()
    assert found["gpu"] == [{"name": "A GPU", "memory_bytes": 80 * 2**30, "capability": "9.0"}]
    assert found["plan"][1]["products_in"] == "bfloat16: this GPU has bfloat16 tensor cores"


@pytest.mark.parametrize(
    ("unit", "dtype"),
    [("AMX tiles", "bfloat16: this CPU multiplies bfloat16 in AMX tiles"), (None, "float32: bfloat16 is not faster")],
)
def test_the_plan_follows_the_processor(unit, dtype, monkeypatch):
    monkeypatch.setattr(precision, "bfloat16_unit", lambda: unit)
    assert examine()["plan"][0]["products_in"].startswith(dtype)


def test_a_wrong_choice_of_kernels_is_part_of_the_diagnosis(monkeypatch):
    monkeypatch.setenv("WORKBENCH_KERNELS", "cuda")
    assert "none, until this is put right: WORKBENCH_KERNELS must be" in examine()["plan"][0]["kernels"]


def test_nothing_is_changed(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    before = dict(os.environ)
    examine()
    assert list(tmp_path.iterdir()) == []
    assert dict(os.environ) == before

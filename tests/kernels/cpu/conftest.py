"""The units for bfloat16 with their instructions emulated: all around these is what runs with them."""

import ctypes
import platform
import subprocess

import pytest
from workbench_kernels.cpu import build, calls, engine, library, tokens

FLAGS = (
    "-std=c++17",
    "-fPIC",
    "-w",
    "-ffp-contract=fast",
    "-mfma",
    "-mf16c",
    "-mprefer-vector-width=512",
)
CALLED = ("workbench_moe", "workbench_grouped", "workbench_causal", "workbench_experts")
UNITS = {"amx": 4, "bf16": 3}  # and their tiers
AVX512 = ("-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl")
# the other instruction sets have tests of their own; here their names alone are needed.
OTHERS = "\n".join(
    f'extern "C" int workbench_{tier}_{call}() {{ return 0; }}'
    for tier in ("portable", "avx2", "avx512")
    for call in ("moe", "grouped", "causal", "norm", "entropy", "topk", "attention", "choice", "experts", "linear")
)


def compiler():
    found = build.find_compiler()
    if found is None or platform.machine().lower() not in {"x86_64", "amd64"}:
        pytest.skip("these instructions are compiled by a C++ compiler on x86-64")
    return found


def compile_with(*arguments):
    subprocess.run([compiler(), *FLAGS, *AVX512, *map(str, arguments)], check=True, capture_output=True)


@pytest.fixture
def compiled():
    """Compiles with the flags that all units share."""
    return compile_with


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
    compile_with("-O1", "-shared", "-o", folder / "matrix.so", folder / "others.cpp", *own, *objects, "-lpthread")
    found = ctypes.CDLL(str(folder / "matrix.so"))
    if found.workbench_best_tier() < UNITS["bf16"] - 1:
        pytest.skip("the emulation needs AVX-512")
    return found


def use(emulated, unit, monkeypatch):
    functions = {name: emulated[name] for name in CALLED}
    for module in (calls, engine, tokens):
        monkeypatch.setattr(module, "kernels", lambda: library.Kernels(emulated, functions, UNITS[unit], "emulated"))
    return emulated


@pytest.fixture(params=UNITS)
def unit(request, emulated, monkeypatch):
    use(emulated, request.param, monkeypatch)
    return request.param


@pytest.fixture
def amx(emulated, monkeypatch):
    return use(emulated, "amx", monkeypatch)

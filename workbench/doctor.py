"""What this machine has, and what the workbench will do with it."""

import importlib.util
import os
import platform
import shutil
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil
import torch
from workbench_kernels import backend_of

from workbench import __version__
from workbench.train.precision import bfloat16_unit, precision_of

__all__ = ["examine"]

_CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
_PACKAGES = ("torch", "triton", "jupyterlab", "ipywidgets", "anywidget", "xarray", "zarr", "transformers", "pyarrow")


def examine() -> dict[str, Any]:
    """Facts about this machine by topic, as plain data; nothing is changed and nothing leaves the machine."""
    return {
        "workbench": {"version": __version__, "python": platform.python_version(), "platform": platform.platform()},
        "cpu": _cpu(),
        "memory": _memory(),
        "gpu": _gpus(),
        "cuda": _cuda(),
        "triton": _triton(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "browser": next((found for name in _CHROMIUM if (found := shutil.which(name))), "none found"),
        "plan": [_plan(device) for device in ("cpu", *(["cuda"] if torch.cuda.is_available() else []))],
    }


def _cpu() -> dict[str, Any]:
    usable = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count()
    return {
        "model": _cpu_model(),
        "cores_usable": usable,
        "torch_threads": torch.get_num_threads(),
        "instruction_set": torch.backends.cpu.get_cpu_capability(),
        "bfloat16": bfloat16_unit() or "no faster than float32",
    }


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _memory() -> dict[str, int]:
    memory, disk = psutil.virtual_memory(), shutil.disk_usage(Path.cwd())
    return {"total_bytes": memory.total, "available_bytes": memory.available, "disk_free_here_bytes": disk.free}


def _gpus() -> list[dict[str, Any]]:
    if not torch.cuda.is_available():
        return []
    return [
        {
            "name": torch.cuda.get_device_name(index),
            "memory_bytes": torch.cuda.get_device_properties(index).total_memory,
            "capability": ".".join(str(part) for part in torch.cuda.get_device_capability(index)),
        }
        for index in range(torch.cuda.device_count())
    ]


def _cuda() -> str:
    if torch.version.cuda is None:
        return "this torch is built without CUDA, so a GPU would not be used; `make setup` chooses the build"
    return f"torch is built for CUDA {torch.version.cuda}" + ("" if torch.cuda.is_available() else ", and finds no GPU")


def _triton() -> str:
    if importlib.util.find_spec("triton") is None:
        return "not installed; it exists for Linux x86-64 only, and the workbench runs without it"
    return f"{_version('triton')}; the kernels for GPUs are written in it"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _plan(device: str) -> dict[str, str]:
    precision = precision_of(device)
    return {
        "device": device,
        "kernels": _kernels(device, precision.dtype),
        "products_in": f"{str(precision.dtype).removeprefix('torch.')}: {precision.reason}",
    }


def _kernels(device: str, dtype: torch.dtype) -> str:
    try:
        backend = backend_of(device, dtype)
    except ValueError as error:
        return f"none, until this is put right: {error}"
    return f"{backend.name}: {backend.reason}"

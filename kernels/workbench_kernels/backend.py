"""Which implementation runs where, and why, in words a person can check."""

import importlib
import importlib.util
import logging
import os
from functools import cache
from types import ModuleType
from typing import NamedTuple

import torch
from torch import Tensor

from workbench_kernels.tracing import is_traced

__all__ = ["Backend", "autocast_inputs", "backend_of", "engine_of", "narrowed_by_engine", "step_of", "tokens_of"]

_LOG = logging.getLogger(__name__)
_ENGINES = {
    "torch": "workbench_kernels.pytorch",
    "cpp": "workbench_kernels.cpu.engine",
    "triton": "workbench_kernels.triton.engine",
}
_TOKENS = {"cpp": "workbench_kernels.cpu.tokens"}
_STEPS = {"cpp": "workbench_kernels.cpu.step"}
_COMPILED = (torch.float32, torch.bfloat16, torch.float16)


class Backend(NamedTuple):
    """An implementation and the reason for it.

    Args:
        name: `torch`, `cpp` or `triton`.
        reason: one sentence.
    """

    name: str
    reason: str


def backend_of(device: torch.device | str, dtype: torch.dtype = torch.float32) -> Backend:
    """The kernels used on a device for a dtype; `WORKBENCH_KERNELS` forces others, and is read at the first call.

    Raises:
        ValueError: `WORKBENCH_KERNELS` names kernels that there are not, or that cannot run there.
    """
    place = device if isinstance(device, torch.device) else torch.device(device)
    return _choose(place, dtype, _environment())


@cache
def engine_of(backend: Backend) -> ModuleType:
    """The module with the functions of an implementation, loaded at its first use."""
    return importlib.import_module(_ENGINES[backend.name])


@cache
def tokens_of(backend: Backend) -> ModuleType | None:
    """The module with the calls for single tokens, None for an implementation that has none."""
    return importlib.import_module(_TOKENS[backend.name]) if backend.name in _TOKENS else None


@cache
def step_of(backend: Backend) -> ModuleType | None:
    """The module that computes a whole step of decoding, None for an implementation that has none."""
    return importlib.import_module(_STEPS[backend.name]) if backend.name in _STEPS else None


def autocast_inputs(*tensors: Tensor) -> tuple[Tensor, ...]:
    """The tensors in autocast's dtype where it is on, as PyTorch's own products take them; float64 stays.

    An autograd function calls its products outside autocast's reach, so its inputs are cast before it.
    """
    device = tensors[0].device.type
    if not torch.is_autocast_enabled(device):
        return tensors
    dtype = torch.get_autocast_dtype(device)
    return tuple(tensor if tensor.dtype == torch.float64 else tensor.to(dtype) for tensor in tensors)


def narrowed_by_engine(*tensors: Tensor) -> torch.dtype | None:
    """Autocast's dtype where kernels round float32 to it while they read, so that nothing need be cast before."""
    if tensors[0].device.type != "cpu" or not torch.is_autocast_enabled("cpu"):
        return None
    dtype = torch.get_autocast_dtype("cpu")
    is_known = all(tensor.dtype in (torch.float32, dtype) for tensor in tensors)
    if not is_known or dtype not in _COMPILED or is_traced(*tensors):
        return None
    backend = backend_of("cpu", dtype)
    return dtype if backend.name == "cpp" and engine_of(backend).narrows_to(dtype) else None


@cache
def _environment() -> tuple[str | None, bool]:
    # once: asking for it at every call took a tenth of the time of decoding a token.
    return os.environ.get("WORKBENCH_KERNELS"), os.environ.get("TRITON_INTERPRET") == "1"


@cache
def _choose(place: torch.device, dtype: torch.dtype, environment: tuple[str | None, bool]) -> Backend:
    # cached: the choice is asked for at every call, and a missing path is logged once.
    kind, index, (wanted, interprets) = place.type, place.index, environment
    if wanted is not None:
        return _forced(wanted, kind, index, dtype, interprets)
    name = {"cpu": "cpp", "cuda": "triton"}.get(kind)
    if name is None:
        return Backend("torch", f"PyTorch products per expert: {kind} has no kernels of its own")
    if dtype not in _COMPILED:
        return Backend("torch", f"PyTorch products per expert: no compiled kernel computes in {_word(dtype)}")
    is_there, reason = _is_there(name, index, interprets)
    if is_there:
        return Backend(name, reason)
    _LOG.warning("experts run on PyTorch products on %s in %s: %s", kind, _word(dtype), reason)
    return Backend("torch", f"PyTorch products per expert, which is slower: {reason}")


def _forced(wanted: str, kind: str, index: int | None, dtype: torch.dtype, interprets: bool) -> Backend:
    if wanted not in _ENGINES:
        raise ValueError(
            f"WORKBENCH_KERNELS must be {', '.join(list(_ENGINES)[:-1])} or {list(_ENGINES)[-1]}, "
            f"got {wanted!r}; unset it to let the device decide"
        )
    if wanted == "torch":
        return Backend("torch", "PyTorch products per expert, as WORKBENCH_KERNELS=torch asks")
    home = "cpu" if wanted == "cpp" or interprets else "cuda"
    if kind != home or dtype not in _COMPILED:
        raise ValueError(
            f"WORKBENCH_KERNELS={wanted} runs on {home} in float32, bfloat16 and float16, "
            f"got {kind} and {_word(dtype)}; unset it, or move or cast the tensors"
        )
    is_there, reason = _is_there(wanted, index, interprets)
    if not is_there:
        raise ValueError(f"WORKBENCH_KERNELS={wanted} cannot run here: {reason}; unset it, or put that right")
    return Backend(wanted, f"{reason}, as WORKBENCH_KERNELS={wanted} asks")


def _is_there(name: str, index: int | None, interprets: bool) -> tuple[bool, str]:
    if name == "cpp":
        library = importlib.import_module("workbench_kernels.cpu.library")
        is_there, reason = library.availability()
        return bool(is_there), str(reason)
    if importlib.util.find_spec("triton") is None:
        return False, "Triton is not installed"
    if interprets:
        return True, "Triton kernels in its interpreter"
    if not torch.cuda.is_available():
        return False, "no CUDA GPU is visible to torch"
    capability = torch.cuda.get_device_capability(index)
    if capability < (8, 0):
        return False, f"the Triton kernels need a GPU of capability 8.0, this one has {capability[0]}.{capability[1]}"
    return True, f"Triton kernels for a GPU of capability {capability[0]}.{capability[1]}"


def _word(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")

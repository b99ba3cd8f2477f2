"""The compiled library in this process: found, loaded and checked once."""

import ctypes
import logging
import platform
from collections.abc import Callable, Mapping
from ctypes import Structure, c_float, c_int, c_int32, c_int64, c_void_p
from functools import lru_cache
from typing import Any, NamedTuple

from workbench_kernels.cpu.build import BuildError, cached_library, compiled_library, shipped_library

__all__ = [
    "AttentionCall",
    "CausalCall",
    "ChoiceCall",
    "EntropyCall",
    "ExpertsCall",
    "GroupedCall",
    "Kernels",
    "LinearCall",
    "MoECall",
    "NormCall",
    "StepCall",
    "TopKCall",
    "availability",
    "kernels",
]

_LOG = logging.getLogger(__name__)
# Instruction sets in the order of the library, worst first, and what their authors could not run.
_TIERS = (
    "portable C++",
    "AVX2",
    "AVX-512",
    "AVX-512, and its pairs of bfloat16",
    "AVX-512, and AMX for bfloat16",
)
_UNPROVEN = {
    "aarch64": " (on arm64 checked under emulation only)",
    "arm64": " (on arm64 checked under emulation only)",
    _TIERS[4]: " (AMX checked with emulated tiles only)",
}


class MoECall(Structure):
    """One call of the layer, field for field as in call.h."""

    _fields_ = (
        *((name, c_int64) for name in ("tokens", "slots", "experts", "width", "hidden_width")),
        *((name, c_int64) for name in ("x_stride", "grad_stride", "out_stride")),
        *((name, c_int32) for name in ("dtype", "activation", "threads", "accumulates", "is_mixed")),
        *((name, c_void_p) for name in ("x", "weight", "gate_up", "down", "rows", "row_of", "offsets")),
        *((name, c_void_p) for name in ("out", "hidden", "grad", "dx", "dweight", "dgate_up", "ddown", "sums")),
    )


class GroupedCall(Structure):
    """One grouped product, field for field as in call.h."""

    _fields_ = (
        *((name, c_int64) for name in ("rows_in_use", "inputs", "outputs", "experts")),
        *((name, c_int32) for name in ("dtype", "threads", "is_turned", "has_wide_rows", "has_wide_weight")),
        *((name, c_void_p) for name in ("rows", "weight", "offsets", "out", "grad", "drows", "dweight")),
    )


class NormCall(Structure):
    """One root-mean-square norm, field for field as in call.h."""

    _fields_ = (
        *((name, c_int64) for name in ("rows", "width")),
        *((name, c_int32) for name in ("dtype", "threads")),
        ("epsilon", c_float),
        *((name, c_void_p) for name in ("x", "gain", "out", "scale", "grad", "dx", "dgain", "narrow_gain")),
    )


class EntropyCall(Structure):
    """One cross-entropy, field for field as in call.h."""

    _fields_ = (
        *((name, c_int64) for name in ("rows", "classes")),
        *((name, c_int32) for name in ("dtype", "threads")),
        *((name, c_void_p) for name in ("logits", "target", "loss", "log_sum", "grad", "dlogits")),
    )


class CausalCall(Structure):
    """One causal attention, field for field as in call.h."""

    _fields_ = (
        *((name, c_int64) for name in ("batch", "length", "heads", "kv_heads", "head_dim")),
        *((name, c_int32) for name in ("dtype", "threads")),
        *((name, c_void_p) for name in ("query", "key", "value", "cosine", "sine", "out", "top", "share")),
        *((name, c_void_p) for name in ("grad", "dquery", "dkey", "dvalue")),
    )


class TopKCall(Structure):
    """The best experts of every row of logits, field for field as in call.h."""

    _fields_ = (
        *((name, c_int64) for name in ("rows", "experts", "slots")),
        *((name, c_int32) for name in ("dtype", "threads", "score", "normalizes")),
        ("scale", c_float),
        *((name, c_void_p) for name in ("logits", "bias", "weight", "expert", "shift", "grad", "dlogits")),
    )


class AttentionCall(Structure):
    """The attention of one token, field for field as in call.h."""

    _fields_ = (
        *((name, c_int64) for name in ("batch", "width", "heads", "kv_heads", "head_dim")),
        *((name, c_int64) for name in ("length", "capacity", "mask_stride")),
        *((name, c_int32) for name in ("dtype", "threads", "norm", "has_wide_gains")),
        *((name, c_float) for name in ("epsilon", "clip")),
        *((name, c_void_p) for name in ("stream", "gain", "query", "key", "value", "output")),
        *((name, c_void_p) for name in ("query_bias", "key_bias", "value_bias", "query_gain", "key_gain")),
        *((name, c_void_p) for name in ("cosine", "sine", "mask", "keys", "values", "out", "turned")),
    )


class ChoiceCall(Structure):
    """The choice of one token, field for field as in call.h."""

    _fields_ = (
        *((name, c_int64) for name in ("width", "experts", "slots")),
        *((name, c_int32) for name in ("dtype", "has_wide_gate", "score", "renormalises")),
        ("scale", c_float),
        *((name, c_void_p) for name in ("x", "gate", "selection_bias", "bias", "expert", "numbers")),
    )


class ExpertsCall(Structure):
    """The experts of one token, field for field as in call.h."""

    _fields_ = (
        *((name, c_int64) for name in ("slots", "experts", "width", "hidden_width")),
        *((name, c_int32) for name in ("dtype", "threads", "is_part")),
        *((name, c_void_p) for name in ("x", "weight", "expert", "gate_up", "down", "residual", "out", "outputs")),
    )


class LinearCall(Structure):
    """A matrix times a few tokens, field for field as in call.h."""

    _fields_ = (
        *((name, c_int64) for name in ("tokens", "inputs", "outputs")),
        *((name, c_int32) for name in ("dtype", "threads")),
        *((name, c_void_p) for name in ("x", "weight", "out")),
    )


class StepCall(Structure):
    """Calls one after the other, field for field as in call.h."""

    _fields_ = (("count", c_int64), ("threads", c_int32), ("kinds", c_void_p), ("calls", c_void_p))


_CALLS = {
    "workbench_moe": MoECall,
    "workbench_grouped": GroupedCall,
    "workbench_causal": CausalCall,
    "workbench_norm": NormCall,
    "workbench_entropy": EntropyCall,
    "workbench_topk": TopKCall,
    "workbench_attention": AttentionCall,
    "workbench_choice": ChoiceCall,
    "workbench_experts": ExpertsCall,
    "workbench_linear": LinearCall,
    "workbench_step": StepCall,
}


class Kernels(NamedTuple):
    """The loaded library and the instruction set in use.

    Args:
        library: everything that it exports.
        functions: those that take a record, by name.
        tier: index of the instruction set.
        reason: what it runs on, in one sentence.
    """

    library: Any
    functions: Mapping[str, Callable[..., int]]
    tier: int
    reason: str


def availability() -> tuple[bool, str]:
    """Whether the C++ kernels can run here, and one sentence why; the first call may compile them for some seconds."""
    found = _load()
    return isinstance(found, Kernels), found.reason if isinstance(found, Kernels) else found


def kernels() -> Kernels:
    """The C++ kernels.

    Raises:
        RuntimeError: they cannot run here.
    """
    found = _load()
    if isinstance(found, Kernels):
        return found
    raise RuntimeError(f"the C++ kernels are needed and cannot run: {found}")


@lru_cache(maxsize=1)
def _load() -> Kernels | str:
    try:
        library, origin = _opened()
    except (BuildError, OSError) as error:
        return str(error)
    functions = {name: library[name] for name in _CALLS}
    for function in functions.values():
        # without argtypes: who calls gives a record by reference and two numbers, and the check took as long as the
        # choice of a token.
        function.restype = c_int
    library.workbench_plan.argtypes = (c_void_p, c_int, c_int64, c_int64, c_int64, c_void_p, c_void_p, c_void_p)
    library.workbench_plan.restype = c_int64
    library.workbench_paging.argtypes = (c_int64, c_int64, c_void_p, c_void_p, c_int, c_int64, *(c_void_p,) * 4)
    library.workbench_paging.restype = c_int64
    library.workbench_stack.argtypes = (c_int64, c_int64, c_void_p, c_void_p, c_int, c_int64, c_int64, *(c_void_p,) * 3)
    library.workbench_stack.restype = c_int64
    try:
        library.workbench_use_openmp(ctypes.cast(ctypes.CDLL(None).GOMP_parallel, c_void_p))
    except AttributeError:
        # PyTorch has loaded no such OpenMP runtime here: the library starts threads of its own.
        pass
    tier = library.workbench_best_tier()
    unproven = _UNPROVEN.get(_TIERS[tier], _UNPROVEN.get(platform.machine().lower(), ""))
    return Kernels(library, functions, tier, f"C++ kernels with {_TIERS[tier]}{unproven}, {origin}")


def _opened() -> tuple[ctypes.CDLL, str]:
    path, shipped = cached_library(), shipped_library()
    if path != shipped:
        return ctypes.CDLL(str(path)), "compiled on this machine"
    try:
        return ctypes.CDLL(str(path)), "shipped with the package"
    except OSError as error:
        # an older C++ library than the wheel's tag promises, as some distributions of Python bring along.
        _LOG.warning("the kernels that came with the package do not load here, so they are compiled: %s", error)
        return ctypes.CDLL(str(compiled_library())), "compiled on this machine"

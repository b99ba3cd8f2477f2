"""What the compiler makes of every launch of a layer, for a GPU that need not be there."""

import math
import re
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import triton
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime.jit import JITFunction
from workbench_kernels.plan import RoutingPlan
from workbench_kernels.triton import configs, engine

TOOL = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
TYPES = {torch.bfloat16: "bf16", torch.float16: "fp16", torch.float32: "fp32", torch.int32: "i32", torch.int64: "i64"}
SHARED_BYTES = {80: 166912, 90: 232448}
OPTIONS = ("num_warps", "num_stages", "enable_fp_fusion")
Launch = tuple[Any, tuple[Any, ...], dict[str, Any]]


def launches_of(
    dtype: torch.dtype, width: int, features: int, rows_per_expert: int, experts: int = 128, offset: int = 0
) -> list[Launch]:
    """The launches of plan, forward, backward and grouped product, on tensors without numbers.

    Matrices, tokens and gradients begin `offset` numbers into their memory.
    """
    top_k = min(8, experts // 2)
    return layer_launches_of(dtype, width, features, rows_per_expert * experts // top_k, experts, top_k, offset)


@contextmanager
def kept() -> Iterator[list[Launch]]:
    """The launches, none of which is made."""
    launches: list[Launch] = []

    def record(self, *args, grid, warmup, **words):
        launches.append((self, args, words))

    with mock.patch.object(JITFunction, "run", record):
        yield launches


def layer_launches_of(
    dtype: torch.dtype, width: int, features: int, tokens: int, experts: int, top_k: int, offset: int
) -> list[Launch]:
    def empty(*shape: int, dtype: torch.dtype = dtype) -> Tensor:
        if not dtype.is_floating_point:
            return torch.empty(shape, dtype=dtype, device="meta")
        return torch.empty(math.prod(shape) + offset, dtype=dtype, device="meta")[offset:].view(shape)

    with kept() as launches:
        plan = RoutingPlan(*engine.plan(empty(tokens, top_k, dtype=torch.int64), experts))
        inputs = (
            empty(tokens, width),
            empty(tokens, top_k, dtype=torch.float32),
            empty(experts, 2 * features, width),
            empty(experts, width, features),
        )
        _, hidden = engine.forward(*inputs, plan, activation="silu", keeps_hidden=True)
        words = {"activation": "silu", "needs": (True, True, True, True)}
        engine.backward(inputs[0], *inputs, hidden, plan, into=None, **words)
        engine.backward(inputs[0], *inputs, hidden, plan, into=inputs[2:], **words)
        rows, grad = empty(tokens * top_k, width), empty(tokens * top_k, 2 * features)
        engine.grouped_mm(rows, inputs[2], plan.offsets)
        engine.grouped_mm_backward(grad, rows, inputs[2], plan.offsets, (True, True))
    return launches


def source_of(launch: Launch) -> tuple[ASTSource, dict[str, int]]:
    """A launch as the compiler takes it, specialised as a launch would be."""
    kernel, args, words = launch
    signature, constants, hints = {}, {}, {}
    for place, name in enumerate(kernel.arg_names):
        value = args[place] if place < len(args) else words[name]
        is_special = not kernel.params[place].do_not_specialize
        if place >= len(args) or (isinstance(value, int) and value == 1 and is_special):
            signature[name], constants[(place,)] = "constexpr", value
            continue
        is_tensor = isinstance(value, Tensor)
        signature[name] = "*" + TYPES[value.dtype] if is_tensor else "i32"
        if is_special and (value.data_ptr() if is_tensor else value) % 16 == 0:
            hints[(place,)] = [["tt.divisibility", 16]]
    options = {name: words[name] for name in OPTIONS if name in words}
    return ASTSource(kernel, signature, constants, hints), options


def resources(launch: Launch, capability: int) -> dict[str, Any]:
    """Matrix instructions, registers, spilled bytes and shared memory [B] of one launch."""
    source, options = source_of(launch)
    made = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(made.asm["cubin"])
        file.flush()
        command = [str(TOOL), "--dump-resource-usage", file.name]
        usage = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    registers, stack, local = re.search(r"REG:(\d+) STACK:(\d+).*?LOCAL:(\d+)", usage).groups()
    return {
        "kernel": launch[0].fn.__name__,
        "words": {name: str(value) for name, value in launch[2].items()},
        "block_m": launch[2].get("BLOCK_M", 0),
        "wgmma": made.asm["ptx"].count("wgmma.mma_async"),
        "mma": made.asm["ptx"].count("mma.sync"),
        "copies": made.asm["ptx"].count("cp.async.c"),
        "registers": int(registers),
        "spilled": int(stack) + int(local),
        "shared": made.metadata.shared,
        "triton": triton.__version__,
    }


def compile_layer(
    dtype: str,
    capability: int,
    rows_per_expert: list[int],
    width: int = 2048,
    features: int = 768,
    experts: int = 128,
    offset: int = 0,
    only: str = "",
) -> dict[str, list[dict[str, Any]]]:
    """Every distinct launch at each number of rows per expert, compiled; of one kernel, if named."""
    configs.NO_GPU = (f"sm{capability}", SHARED_BYTES[capability])
    distinct = {}
    for rows in rows_per_expert:
        for launch in launches_of(getattr(torch, dtype), width, features, rows, experts, offset):
            if only in launch[0].fn.__name__:
                distinct[version_of(launch)] = launch
    return {"launches": [resources(launch, capability) for launch in distinct.values()]}


def version_of(launch: Launch) -> str:
    """What machine code a launch asks for."""
    source, options = source_of(launch)
    return repr((source.signature, source.constants, source.attrs, launch[0].fn.__name__, options))


def versions(tokens: list[int]) -> dict[str, int]:
    """How many machine codes each launch of a small layer asks for, when only the number of tokens differs."""
    batches = [layer_launches_of(torch.bfloat16, 256, 512, count, 8, 2, 0) for count in tokens]
    return {
        f"{place} {same[0][0].fn.__name__}": len({version_of(launch) for launch in same})
        for place, same in enumerate(zip(*batches, strict=True))
    }

"""What the custom operators count for in `torch.utils.flop_counter`."""

import importlib
from collections.abc import Sequence
from typing import Any

import torch

# the operators are defined where they are implemented.
from workbench_kernels import grouped_mm as _grouped_mm  # noqa: F401
from workbench_kernels import moe_mlp as _moe_mlp  # noqa: F401

__all__ = ["register_flop_formulas"]

_Shape = Sequence[int]


def register_flop_formulas() -> None:
    """Let every `FlopCounterMode` made from now on count the layers; a second call changes nothing.

    Rows that a plan leaves empty are counted too: only the device knows how many they are.
    """
    # imported late: the counter imports Triton where that is installed.
    counter = importlib.import_module("torch.utils.flop_counter")
    ops = torch.ops.workbench_kernels
    formulas = {
        ops.moe_mlp: _layer,
        ops.moe_mlp_backward: _layer_backward,
        ops.moe_mlp_backward_into: _layer_backward,
        ops.grouped_mm: _grouped,
        ops.grouped_mm_backward: _grouped_backward,
    }
    for operator, formula in formulas.items():
        if operator not in counter.flop_registry:
            counter.register_flop_formula(operator)(formula)


def _layer(x: _Shape, weight: _Shape, gate_up: _Shape, down: _Shape, rows: _Shape, *rest: Any, **named: Any) -> int:
    return 2 * rows[0] * (gate_up[1] * gate_up[2] + down[1] * down[2])


def _layer_backward(grad: _Shape, *inputs: Any, **named: Any) -> int:
    x, weight, gate_up, down, _, rows, *_ = inputs
    return 2 * _layer(x, weight, gate_up, down, rows)


def _grouped(rows: _Shape, weight: _Shape, *rest: Any, **named: Any) -> int:
    return 2 * rows[0] * weight[1] * weight[2]


def _grouped_backward(grad: _Shape, rows: _Shape, weight: _Shape, *rest: Any, **named: Any) -> int:
    return 2 * _grouped(rows, weight)

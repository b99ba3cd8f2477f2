"""Every group of rows times its own matrix, with a hand-written backward."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from workbench_kernels.backend import autocast_inputs

__all__ = ["grouped_mm"]


class _GroupedMM(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor, counts: Tensor) -> Tensor:
        sizes = counts.tolist()
        ctx.save_for_backward(rows, weight)
        ctx.sizes = sizes
        out = rows.new_empty(rows.shape[0], weight.shape[1])
        for index, (part, place) in enumerate(zip(rows.split(sizes), out.split(sizes), strict=True)):
            torch.mm(part, weight[index].t(), out=place)
        return out

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        rows, weight = ctx.saved_tensors
        grad_rows = torch.empty_like(rows) if ctx.needs_input_grad[0] else None
        grad_weight = torch.zeros_like(weight) if ctx.needs_input_grad[1] else None
        start = 0
        for index, size in enumerate(ctx.sizes):
            place = slice(start, start + size)
            if grad_rows is not None:
                torch.mm(grad[place], weight[index], out=grad_rows[place])
            if grad_weight is not None and size:
                torch.mm(grad[place].t(), rows[place], out=grad_weight[index])
            start += size
        return grad_rows, grad_weight, None


def grouped_mm(
    rows: Float[Tensor, "N I"], weight: Float[Tensor, "E O I"], counts: Int[Tensor, "E"]
) -> Float[Tensor, "N O"]:
    """Every group of rows times its own matrix.

    Autograd of `weight[e]` in a loop would build one full-size zero gradient per expert, quadratic
    in E; this writes each expert's gradient once.

    Args:
        counts: rows of each group, in order; they sum to N.

    Raises:
        ValueError: counts do not sum to the number of rows.
    """
    if int(counts.sum()) != rows.shape[0]:
        raise ValueError(f"counts must sum to the number of rows {rows.shape[0]}, got {int(counts.sum())}")
    rows, weight = autocast_inputs(rows, weight)
    result: Tensor = _GroupedMM.apply(rows, weight, counts)  # type: ignore[no-untyped-call]
    return result

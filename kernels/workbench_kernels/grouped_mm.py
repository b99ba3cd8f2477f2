"""Every group of rows times its own matrix, with a hand-written backward."""

from itertools import pairwise
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from workbench_kernels import pytorch
from workbench_kernels.backend import autocast_inputs, backend_of, engine_of, narrowed_by_engine
from workbench_kernels.plan import LIMIT
from workbench_kernels.tracing import is_traced

__all__ = ["grouped_mm"]


def grouped_mm(
    rows: Float[Tensor, "N I"],
    weight: Float[Tensor, "E O I"],
    offsets: Int[Tensor, "E1"],
    *,
    bias: Float[Tensor, "E O"] | None = None,
) -> Float[Tensor, "N O"]:
    """Every group of rows times its own matrix, plus its own bias; rows past the last group give zero.

    Autograd of `weight[e]` in a loop would build one full-size zero gradient per expert, quadratic
    in E; this writes each expert's gradient once. Any strides, and float64 too.

    Args:
        offsets: first row of each group, and the end of the last: a plan's, or `offsets_of` counts.

    Raises:
        ValueError: shapes, dtypes, devices or offsets that do not fit.
    """
    narrow = narrowed_by_engine(rows, weight) if weight.dtype == torch.float32 else None
    if narrow is None:
        rows, weight = autocast_inputs(rows, weight)
    _check(rows, weight, offsets, narrow)
    inputs = rows.contiguous(), weight if _is_transposed(weight) else weight.contiguous(), offsets.int().contiguous()
    if is_traced(rows, weight):
        out = torch.ops.workbench_kernels.grouped_mm(*inputs)
    elif torch.is_grad_enabled() and (rows.requires_grad or weight.requires_grad):
        out = _GroupedMM.apply(*inputs, narrow)
    else:
        out = _forward(*inputs, narrow)
    if bias is None or bias.numel() == 0:
        return out  # type: ignore[no-any-return]
    result: Tensor = out + _OfRows.apply(bias.to(out.dtype), inputs[2], rows.shape[0])
    return result


def _is_transposed(weight: Tensor) -> bool:
    return not weight.is_contiguous() and weight.transpose(1, 2).is_contiguous()


def _engine_for(rows: Tensor, weight: Tensor, narrow: torch.dtype | None) -> ModuleType:
    backend = backend_of(rows.device, narrow or rows.dtype)
    # Triton's kernels want rows of matrices in a piece, and a copy of all experts costs more than they gain.
    return pytorch if backend.name == "triton" and _is_transposed(weight) else engine_of(backend)


def _check(rows: Tensor, weight: Tensor, offsets: Tensor, narrow: torch.dtype | None) -> None:
    if rows.dim() != 2 or weight.dim() != 3 or rows.shape[1] != weight.shape[2]:
        raise ValueError(
            f"rows and weight must be N x I and E x O x I, got {tuple(rows.shape)} and {tuple(weight.shape)}; "
            "transpose the matrices if theirs are the other way round"
        )
    if rows.shape[0] >= LIMIT:
        raise ValueError(f"rows must be less than 2**31 - 2**16, got {rows.shape[0]}; split them by group")
    if narrow is None and (rows.dtype != weight.dtype or not rows.dtype.is_floating_point):
        raise ValueError(
            f"rows and weight must have one floating-point dtype, got {rows.dtype} and {weight.dtype}; "
            "cast them, or use torch.autocast"
        )
    if offsets.dim() != 1 or offsets.shape[0] != weight.shape[0] + 1 or offsets.dtype not in (torch.int32, torch.int64):
        raise ValueError(
            f"offsets must be {weight.shape[0] + 1} numbers of int32 or int64 for {weight.shape[0]} matrices, got "
            f"{offsets.dtype} of shape {tuple(offsets.shape)}; offsets_of(counts) makes them from counts"
        )
    if not (rows.device == weight.device == offsets.device):
        raise ValueError(
            f"rows, weight and offsets must be on one device, got {rows.device}, {weight.device} and {offsets.device}; "
            "move them to that of rows"
        )


def _check_ends(offsets: Tensor, num_rows: int) -> None:
    # only where it costs no wait for a device: kernels there clamp nothing, so their plans must be right.
    if offsets.device.type != "cpu":
        return
    bounds = offsets.tolist()
    if bounds[0] != 0 or bounds[-1] > num_rows or any(a > b for a, b in pairwise(bounds)):
        raise ValueError(
            f"offsets must start at 0, never fall and end at {num_rows} rows or before, got {bounds}; "
            "make them with offsets_of(counts)"
        )


class _OfRows(torch.autograd.Function):
    """The vector of every row's group: gathered, and summed in the order of rows; zero past the last group."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, offsets: Tensor, num_rows: int) -> Tensor:
        ctx.save_for_backward(offsets)
        row = torch.arange(num_rows, dtype=offsets.dtype, device=offsets.device)
        group = torch.searchsorted(offsets[1:], row, right=True)
        own = value.index_select(0, group.clamp_max(value.shape[0] - 1))
        return own.masked_fill_((group == value.shape[0]).unsqueeze(1), 0)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (offsets,) = ctx.saved_tensors
        exact = grad if grad.dtype == torch.float64 else grad.float()
        row = torch.arange(grad.shape[0], dtype=offsets.dtype, device=offsets.device)
        # the rows past the last group make one bag more.
        total = F.embedding_bag(row, exact, offsets, mode="sum")[:-1]
        return total.to(grad.dtype), None, None


class _GroupedMM(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor, offsets: Tensor, narrow: torch.dtype | None) -> Tensor:
        ctx.save_for_backward(rows, weight, offsets)
        ctx.narrow = narrow
        return _forward(rows, weight, offsets, narrow)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        saved = (grad.contiguous(), *ctx.saved_tensors)
        return (*_backward(*saved, ctx.needs_input_grad[:2], ctx.narrow), None, None)


def _forward(rows: Tensor, weight: Tensor, offsets: Tensor, narrow: torch.dtype | None = None) -> Tensor:
    _check_ends(offsets, rows.shape[0])
    if rows.numel() == 0 or weight.numel() == 0:
        return rows.new_zeros(rows.shape[0], weight.shape[1], dtype=narrow or rows.dtype)
    options: dict[str, Any] = {} if narrow is None else {"products": narrow}
    out: Tensor = _engine_for(rows, weight, narrow).grouped_mm(rows, weight, offsets, **options)
    return out


def _backward(
    grad: Tensor,
    rows: Tensor,
    weight: Tensor,
    offsets: Tensor,
    needs: tuple[bool, bool],
    narrow: torch.dtype | None = None,
) -> tuple[Tensor | None, Tensor | None]:
    if rows.numel() == 0 or weight.numel() == 0:
        return torch.zeros_like(rows) if needs[0] else None, torch.zeros_like(weight) if needs[1] else None
    options: dict[str, Any] = {} if narrow is None else {"products": narrow}
    engine = _engine_for(rows, weight, narrow)
    of_rows, of_weight = engine.grouped_mm_backward(grad, rows, weight, offsets, needs, **options)
    return of_rows, of_weight


def _forward_fake(rows: Tensor, weight: Tensor, offsets: Tensor) -> Tensor:
    return rows.new_empty(rows.shape[0], weight.shape[1])


def _setup(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _through(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
    needs = list(ctx.needs_input_grad[:2])
    found = torch.ops.workbench_kernels.grouped_mm_backward(grad.contiguous(), *ctx.saved_tensors, needs)
    return found[0] if needs[0] else None, found[1] if needs[1] else None, None


def _backward_op(
    grad: Tensor, rows: Tensor, weight: Tensor, offsets: Tensor, needs: list[bool]
) -> tuple[Tensor, Tensor]:
    of_rows, of_weight = _backward(grad, rows, weight, offsets, (needs[0], needs[1]))
    return grad.new_empty(0) if of_rows is None else of_rows, grad.new_empty(0) if of_weight is None else of_weight


def _backward_fake(
    grad: Tensor, rows: Tensor, weight: Tensor, offsets: Tensor, needs: list[bool]
) -> tuple[Tensor, Tensor]:
    return (
        torch.empty_like(rows) if needs[0] else grad.new_empty(0),
        torch.empty_like(weight) if needs[1] else grad.new_empty(0),
    )


_LIBRARY = torch.library.Library("workbench_kernels", "FRAGMENT")
_LIBRARY.define("grouped_mm(Tensor rows, Tensor weight, Tensor offsets) -> Tensor")
_LIBRARY.define(
    "grouped_mm_backward(Tensor grad, Tensor rows, Tensor weight, Tensor offsets, bool[] needs) -> (Tensor, Tensor)"
)
_LIBRARY.impl("grouped_mm", _forward, "CompositeExplicitAutograd")
_LIBRARY.impl("grouped_mm_backward", _backward_op, "CompositeExplicitAutograd")
torch.library.register_fake("workbench_kernels::grouped_mm", _forward_fake, lib=_LIBRARY)
torch.library.register_fake("workbench_kernels::grouped_mm_backward", _backward_fake, lib=_LIBRARY)
torch.library.register_autograd("workbench_kernels::grouped_mm", _through, setup_context=_setup, lib=_LIBRARY)

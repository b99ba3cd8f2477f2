"""The engine `cpp`: tensors to the C++ kernels and back."""

import torch
from torch import Tensor

from workbench_kernels.cpu.calls import DTYPES, run
from workbench_kernels.cpu.library import CausalCall, GroupedCall, MoECall, kernels
from workbench_kernels.cpu.rows import (
    cross_entropy,
    cross_entropy_backward,
    rms_norm,
    rms_norm_backward,
    topk_gate,
    topk_gate_backward,
)
from workbench_kernels.plan import RoutingPlan
from workbench_kernels.workspace import recycled

__all__ = [
    "attention",
    "attention_backward",
    "backward",
    "cross_entropy",
    "cross_entropy_backward",
    "forward",
    "grouped_mm",
    "grouped_mm_backward",
    "narrows_to",
    "outruns_pytorch",
    "plan",
    "rms_norm",
    "rms_norm_backward",
    "topk_gate",
    "topk_gate_backward",
]

_CPU = torch.device("cpu")
_PAIRS_TIER = 3
_ACTIVATIONS = {"silu": 0, "gelu_tanh": 1, "gelu": 2, "relu": 3}


def plan(expert: Tensor, num_experts: int) -> tuple[Tensor, Tensor, Tensor]:
    """Rows, row of each slot, and first row of each expert: a stable counting sort."""
    tokens, slots = expert.shape
    rows = torch.empty(tokens * slots, dtype=torch.int32)
    row_of = torch.empty(tokens, slots, dtype=torch.int32)
    offsets = torch.empty(num_experts + 1, dtype=torch.int32)
    kernels().library.workbench_plan(
        expert.data_ptr(),
        expert.dtype == torch.int64,
        tokens,
        slots,
        num_experts,
        rows.data_ptr(),
        row_of.data_ptr(),
        offsets.data_ptr(),
    )
    return rows, row_of, offsets


def narrows_to(dtype: torch.dtype) -> bool:
    """Whether layers and products of that dtype also take tokens and weights in float32, and give such gradients."""
    return dtype == torch.bfloat16 and kernels().tier >= _PAIRS_TIER


def outruns_pytorch() -> bool:
    """Whether a single matrix, too, is better multiplied here, as was measured on AMD's processors."""
    return kernels().tier == _PAIRS_TIER


def forward(
    x: Tensor,
    weight: Tensor,
    gate_up: Tensor,
    down: Tensor,
    plan: RoutingPlan,
    *,
    activation: str,
    keeps_hidden: bool,
    is_wide: bool = False,
    products: torch.dtype | None = None,
) -> tuple[Tensor, Tensor]:
    """The output, and the pre-activations in the kernels' own order where they are kept, of the dtype of products."""
    products = products or x.dtype
    out = recycled(x.shape, torch.float32 if is_wide else products, _CPU)
    hidden = recycled((plan.num_rows, gate_up.shape[1]) if keeps_hidden else (0,), products, _CPU)
    call = _call(x, weight, gate_up, down, plan, activation, products)
    call.out, call.sums = (None, out.data_ptr()) if is_wide else (out.data_ptr(), None)
    call.hidden = hidden.data_ptr() or None
    run("workbench_moe", call, 0)
    return out, hidden


def backward(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    gate_up: Tensor,
    down: Tensor,
    hidden: Tensor,
    plan: RoutingPlan,
    *,
    activation: str,
    needs: tuple[bool, bool, bool, bool],
    into: tuple[Tensor, Tensor] | None,
    products: torch.dtype | None = None,
) -> tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None]:
    """The gradients that are needed; those of the experts are added to `into` where it is given."""
    call = _call(x, weight, gate_up, down, plan, activation, products or x.dtype)
    call.grad, call.hidden = grad.data_ptr(), hidden.data_ptr() or None
    dx = recycled(x.shape, x.dtype, _CPU) if needs[0] else None
    dweight = torch.empty_like(weight) if needs[1] else None
    if into is None:
        dgate_up, ddown = (
            recycled(one.shape, one.dtype, _CPU) if is_needed else None
            for one, is_needed in zip((gate_up, down), needs[2:], strict=True)
        )
    else:
        dgate_up, ddown = into
    call.accumulates = into is not None
    for name, tensor in (("dx", dx), ("dweight", dweight), ("dgate_up", dgate_up), ("ddown", ddown)):
        if tensor is not None:
            setattr(call, name, tensor.data_ptr())
    run("workbench_moe", call, 1)
    return (dx, dweight, dgate_up, ddown) if into is None else (dx, dweight, None, None)


def grouped_mm(rows: Tensor, weight: Tensor, offsets: Tensor, products: torch.dtype | None = None) -> Tensor:
    """Every group of rows times its own matrix, which may be the transpose of contiguous ones; other rows are zero."""
    products = products or rows.dtype
    out = recycled((rows.shape[0], weight.shape[1]), products, _CPU)
    call = _grouped(rows, weight, offsets, products)
    out[call.rows_in_use :] = 0
    call.out = out.data_ptr()
    run("workbench_grouped", call, 0)
    return out


def grouped_mm_backward(
    grad: Tensor,
    rows: Tensor,
    weight: Tensor,
    offsets: Tensor,
    needs: tuple[bool, bool],
    products: torch.dtype | None = None,
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of the rows and of the matrices, which lie as the matrices do."""
    call = _grouped(rows, weight, offsets, products or rows.dtype)
    drows = recycled(rows.shape, rows.dtype, _CPU) if needs[0] else None
    is_turned = bool(call.is_turned)
    dweight = recycled((weight.mT if is_turned else weight).shape, weight.dtype, _CPU) if needs[1] else None
    call.grad = grad.data_ptr()
    if drows is not None:
        drows[call.rows_in_use :] = 0
        call.drows = drows.data_ptr()
    if dweight is not None:
        call.dweight = dweight.data_ptr()
        dweight = dweight.mT if is_turned else dweight
    run("workbench_grouped", call, 1)
    return drows, dweight


def attention(
    query: Tensor, key: Tensor, value: Tensor, turn: tuple[Tensor, Tensor] | None, *, keeps_scale: bool
) -> tuple[Tensor, Tensor | None]:
    """Causal attention; and of each query its highest product and the share of a weight of 1, where they are kept."""
    batch, length, heads, _ = query.shape
    out = recycled(query.shape, query.dtype, _CPU)
    scale = torch.empty(2, batch, heads, length) if keeps_scale else None
    call = _causal(query, key, value, turn, out, scale)
    run("workbench_causal", call, 0)
    return out, scale


def attention_backward(
    grad: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    turn: tuple[Tensor, Tensor] | None,
    out: Tensor,
    scale: Tensor,
    needs: tuple[bool, bool, bool],
) -> tuple[Tensor | None, ...]:
    """The gradients of query, key and value that are needed."""
    call = _causal(query, key, value, turn, out, scale)
    call.grad = grad.data_ptr()
    found = [recycled(x.shape, x.dtype, _CPU) if y else None for x, y in zip((query, key, value), needs, strict=True)]
    call.dquery, call.dkey, call.dvalue = (None if one is None else one.data_ptr() for one in found)
    run("workbench_causal", call, 1)
    return tuple(found)


def _causal(
    query: Tensor, key: Tensor, value: Tensor, turn: tuple[Tensor, Tensor] | None, out: Tensor, scale: Tensor | None
) -> CausalCall:
    batch, length, heads, channels = query.shape
    call = CausalCall(batch, length, heads, key.shape[2], channels, DTYPES[query.dtype], torch.get_num_threads())
    call.query, call.key, call.value = query.data_ptr(), key.data_ptr(), value.data_ptr()
    call.cosine, call.sine = (None, None) if turn is None else (part.data_ptr() for part in turn)
    call.out = out.data_ptr()
    call.top, call.share = (None, None) if scale is None else (part.data_ptr() for part in scale)
    return call


def _call(
    x: Tensor,
    weight: Tensor,
    gate_up: Tensor,
    down: Tensor,
    plan: RoutingPlan,
    activation: str,
    products: torch.dtype,
) -> MoECall:
    tokens, width = x.shape
    experts, double, _ = gate_up.shape
    return MoECall(
        tokens,
        weight.shape[1],
        experts,
        width,
        double // 2,
        width,
        width,
        width,
        DTYPES[products],
        _ACTIVATIONS[activation],
        torch.get_num_threads(),
        0,
        x.dtype != products,
        x.data_ptr(),
        weight.data_ptr(),
        gate_up.data_ptr(),
        down.data_ptr(),
        plan.rows.data_ptr(),
        plan.row_of.data_ptr(),
        plan.offsets.data_ptr(),
    )


def _grouped(rows: Tensor, weight: Tensor, offsets: Tensor, products: torch.dtype) -> GroupedCall:
    return GroupedCall(
        int(offsets[-1]),
        weight.shape[2],
        weight.shape[1],
        weight.shape[0],
        DTYPES[products],
        torch.get_num_threads(),
        not weight.is_contiguous(),
        rows.dtype != products,
        weight.dtype != products,
        rows.data_ptr(),
        weight.data_ptr(),
        offsets.data_ptr(),
    )

"""The engine `cpp`: tensors to the C++ kernels and back."""

import ctypes

import torch
from torch import Tensor

from workbench_kernels.cpu.library import EntropyCall, GroupedCall, MoECall, NormCall, TopKCall, kernels
from workbench_kernels.plan import RoutingPlan
from workbench_kernels.workspace import recycled

__all__ = [
    "backward",
    "cross_entropy",
    "cross_entropy_backward",
    "forward",
    "grouped_mm",
    "grouped_mm_backward",
    "plan",
    "rms_norm",
    "rms_norm_backward",
    "topk_gate",
    "topk_gate_backward",
]

_DTYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}
_CPU = torch.device("cpu")
_NO_MEMORY = "the kernels got no scratch memory; use fewer tokens at once"
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
) -> tuple[Tensor, Tensor]:
    """The output, and the pre-activations in the kernels' own order where they are kept."""
    out = recycled(x.shape, torch.float32 if is_wide else x.dtype, _CPU)
    hidden = recycled((plan.num_rows, gate_up.shape[1]) if keeps_hidden else (0,), x.dtype, _CPU)
    call = _call(x, weight, gate_up, down, plan, activation)
    call.out, call.sums = (None, out.data_ptr()) if is_wide else (out.data_ptr(), None)
    call.hidden = hidden.data_ptr() or None
    _run("workbench_moe", call, 0)
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
) -> tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None]:
    """The gradients that are needed; those of the experts are added to `into` where it is given."""
    call = _call(x, weight, gate_up, down, plan, activation)
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
    _run("workbench_moe", call, 1)
    return (dx, dweight, dgate_up, ddown) if into is None else (dx, dweight, None, None)


def grouped_mm(rows: Tensor, weight: Tensor, offsets: Tensor) -> Tensor:
    """Every group of rows times its own matrix, which may be the transpose of contiguous ones; other rows are zero."""
    out = recycled((rows.shape[0], weight.shape[1]), rows.dtype, _CPU)
    call = _grouped(rows, weight, offsets)
    out[call.rows_in_use :] = 0
    call.out = out.data_ptr()
    _run("workbench_grouped", call, 0)
    return out


def grouped_mm_backward(
    grad: Tensor, rows: Tensor, weight: Tensor, offsets: Tensor, needs: tuple[bool, bool]
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of the rows and of the matrices, which lie as the matrices do."""
    call = _grouped(rows, weight, offsets)
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
    _run("workbench_grouped", call, 1)
    return drows, dweight


def rms_norm(x: Tensor, gain: Tensor, epsilon: float, *, keeps_scale: bool) -> tuple[Tensor, Tensor | None]:
    """Rows over their root mean square, times the gain; and the factor of each row where it is kept."""
    out = recycled(x.shape, x.dtype, _CPU)
    scale = torch.empty(x.shape[:-1]) if keeps_scale else None
    call = _norm(x, gain, epsilon)
    call.out = out.data_ptr()
    if scale is not None:
        call.scale = scale.data_ptr()
    _run("workbench_norm", call, 0)
    return out, scale


def rms_norm_backward(
    grad: Tensor, x: Tensor, gain: Tensor, scale: Tensor, needs: tuple[bool, bool]
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of the rows and of the gain."""
    dx = recycled(x.shape, x.dtype, _CPU) if needs[0] else None
    dgain = torch.empty_like(gain) if needs[1] else None
    call = _norm(x, gain, 0.0)
    call.scale, call.grad = scale.data_ptr(), grad.data_ptr()
    call.dx = None if dx is None else dx.data_ptr()
    call.dgain = None if dgain is None else dgain.data_ptr()
    _run("workbench_norm", call, 1)
    return dx, dgain


def cross_entropy(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Loss of every row, NaN where the target is no class; and the log of the sum of its exponentials."""
    loss, log_sum = torch.empty(len(logits)), torch.empty(len(logits))
    call = _entropy(logits, target, log_sum)
    call.loss = loss.data_ptr()
    _run("workbench_entropy", call, 0)
    return loss, log_sum


def cross_entropy_backward(grad: Tensor, logits: Tensor, target: Tensor, log_sum: Tensor) -> Tensor:
    """Gradient of the logits; zero in rows without a class."""
    dlogits = recycled(logits.shape, logits.dtype, _CPU)
    call = _entropy(logits, target, log_sum)
    call.grad, call.dlogits = grad.data_ptr(), dlogits.data_ptr()
    _run("workbench_entropy", call, 1)
    return dlogits


def topk_gate(
    logits: Tensor,
    top_k: int,
    score: str,
    bias: Tensor | None,
    normalize: bool,
    scale: float,
    *,
    keeps_shift: bool,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Weights and ids of the best of every row; and what softmax needs to make its scores again, where it is kept."""
    rows = len(logits)
    weight = torch.empty(rows, top_k, dtype=torch.float32, device=_CPU)
    expert = torch.empty(rows, top_k, dtype=torch.int64, device=_CPU)
    is_kept = keeps_shift and score == "softmax"
    shift = torch.empty(rows, 2, dtype=torch.float32, device=_CPU) if is_kept else None
    call = _topk(logits, expert, shift, score, normalize, scale)
    call.weight, call.bias = weight.data_ptr(), None if bias is None else bias.data_ptr()
    _run("workbench_topk", call, 0)
    return weight, expert, shift


def topk_gate_backward(
    grad: Tensor, logits: Tensor, expert: Tensor, shift: Tensor | None, score: str, normalize: bool, scale: float
) -> Tensor:
    """Gradient of the logits."""
    dlogits = recycled(logits.shape, logits.dtype, _CPU)
    call = _topk(logits, expert, shift, score, normalize, scale)
    call.grad, call.dlogits = grad.data_ptr(), dlogits.data_ptr()
    _run("workbench_topk", call, 1)
    return dlogits


def _topk(logits: Tensor, expert: Tensor, shift: Tensor | None, score: str, normalize: bool, scale: float) -> TopKCall:
    threads = torch.get_num_threads()
    call = TopKCall(
        *logits.shape, expert.shape[1], _DTYPES[logits.dtype], threads, score == "sigmoid", normalize, scale
    )
    call.logits, call.expert = logits.data_ptr(), expert.data_ptr()
    call.shift = None if shift is None else shift.data_ptr()
    return call


def _norm(x: Tensor, gain: Tensor, epsilon: float) -> NormCall:
    width = x.shape[-1]
    threads = torch.get_num_threads()
    return NormCall(x.numel() // width, width, _DTYPES[x.dtype], threads, epsilon, x.data_ptr(), gain.data_ptr())


def _entropy(logits: Tensor, target: Tensor, log_sum: Tensor) -> EntropyCall:
    call = EntropyCall(*logits.shape, _DTYPES[logits.dtype], torch.get_num_threads())
    call.logits, call.target, call.log_sum = logits.data_ptr(), target.data_ptr(), log_sum.data_ptr()
    return call


def _call(x: Tensor, weight: Tensor, gate_up: Tensor, down: Tensor, plan: RoutingPlan, activation: str) -> MoECall:
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
        _DTYPES[x.dtype],
        _ACTIVATIONS[activation],
        torch.get_num_threads(),
        0,
        x.data_ptr(),
        weight.data_ptr(),
        gate_up.data_ptr(),
        down.data_ptr(),
        plan.rows.data_ptr(),
        plan.row_of.data_ptr(),
        plan.offsets.data_ptr(),
    )


def _grouped(rows: Tensor, weight: Tensor, offsets: Tensor) -> GroupedCall:
    return GroupedCall(
        int(offsets[-1]),
        weight.shape[2],
        weight.shape[1],
        weight.shape[0],
        _DTYPES[rows.dtype],
        torch.get_num_threads(),
        not weight.is_contiguous(),
        rows.data_ptr(),
        weight.data_ptr(),
        offsets.data_ptr(),
    )


def _run(name: str, call: ctypes.Structure, is_backward: int) -> None:
    loaded = kernels()
    if loaded.functions[name](ctypes.byref(call), is_backward, loaded.tier) != 1:
        raise MemoryError(_NO_MEMORY)

"""The engine `cpp` for work on one row at a time: norms, losses and the choice of experts."""

import torch
from torch import Tensor

from workbench_kernels.cpu.calls import DTYPES, run
from workbench_kernels.cpu.library import EntropyCall, NormCall, TopKCall
from workbench_kernels.workspace import recycled

__all__ = [
    "cross_entropy",
    "cross_entropy_backward",
    "rms_norm",
    "rms_norm_backward",
    "topk_gate",
    "topk_gate_backward",
]

_CPU = torch.device("cpu")


def rms_norm(x: Tensor, gain: Tensor, epsilon: float, *, keeps_scale: bool) -> tuple[Tensor, Tensor | None]:
    """Rows over their root mean square, times the gain; and the factor of each row where it is kept."""
    out = recycled(x.shape, x.dtype, _CPU)
    scale = torch.empty(x.shape[:-1]) if keeps_scale else None
    call = _norm(x, gain, epsilon)
    call.out = out.data_ptr()
    if scale is not None:
        call.scale = scale.data_ptr()
    run("workbench_norm", call, 0)
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
    run("workbench_norm", call, 1)
    return dx, dgain


def cross_entropy(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Loss of every row, NaN where the target is no class; and the log of the sum of its exponentials."""
    loss, log_sum = torch.empty(len(logits)), torch.empty(len(logits))
    call = _entropy(logits, target, log_sum)
    call.loss = loss.data_ptr()
    run("workbench_entropy", call, 0)
    return loss, log_sum


def cross_entropy_backward(grad: Tensor, logits: Tensor, target: Tensor, log_sum: Tensor) -> Tensor:
    """Gradient of the logits; zero in rows without a class."""
    dlogits = recycled(logits.shape, logits.dtype, _CPU)
    call = _entropy(logits, target, log_sum)
    call.grad, call.dlogits = grad.data_ptr(), dlogits.data_ptr()
    run("workbench_entropy", call, 1)
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
    run("workbench_topk", call, 0)
    return weight, expert, shift


def topk_gate_backward(
    grad: Tensor, logits: Tensor, expert: Tensor, shift: Tensor | None, score: str, normalize: bool, scale: float
) -> Tensor:
    """Gradient of the logits."""
    dlogits = recycled(logits.shape, logits.dtype, _CPU)
    call = _topk(logits, expert, shift, score, normalize, scale)
    call.grad, call.dlogits = grad.data_ptr(), dlogits.data_ptr()
    run("workbench_topk", call, 1)
    return dlogits


def _norm(x: Tensor, gain: Tensor, epsilon: float) -> NormCall:
    width = x.shape[-1]
    threads = torch.get_num_threads()
    return NormCall(x.numel() // width, width, DTYPES[x.dtype], threads, epsilon, x.data_ptr(), gain.data_ptr())


def _entropy(logits: Tensor, target: Tensor, log_sum: Tensor) -> EntropyCall:
    call = EntropyCall(*logits.shape, DTYPES[logits.dtype], torch.get_num_threads())
    call.logits, call.target, call.log_sum = logits.data_ptr(), target.data_ptr(), log_sum.data_ptr()
    return call


def _topk(logits: Tensor, expert: Tensor, shift: Tensor | None, score: str, normalize: bool, scale: float) -> TopKCall:
    threads = torch.get_num_threads()
    call = TopKCall(*logits.shape, expert.shape[1], DTYPES[logits.dtype], threads, score == "sigmoid", normalize, scale)
    call.logits, call.expert = logits.data_ptr(), expert.data_ptr()
    call.shift = None if shift is None else shift.data_ptr()
    return call

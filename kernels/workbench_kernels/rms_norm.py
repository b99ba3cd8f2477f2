"""Root-mean-square norm with a learned gain, forward and backward in one pass each over the rows."""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from workbench_kernels.backend import backend_of, engine_of
from workbench_kernels.tracing import is_traced

__all__ = ["rms_norm"]


def rms_norm(x: Float[Tensor, "... D"], gain: Float[Tensor, "D"], epsilon: float) -> Float[Tensor, "... D"]:
    """The rows over their root mean square, times the gain, in the dtype of the rows; sums in float32.

    On a GPU, in float64 and under a tracer this is PyTorch's own norm, which a compiler fuses.

    Source: arXiv 1910.07467.
    """
    if x.shape[-1:] != gain.shape:
        raise ValueError(f"gain must have the width of the rows, {x.shape[-1]}, got shape {tuple(gain.shape)}")
    exact = torch.float64 if x.dtype == torch.float64 else torch.float32
    scales = gain.to(exact)
    backend = backend_of(x.device, x.dtype)
    if backend.name != "cpp" or x.numel() == 0 or is_traced(x, gain):
        return F.rms_norm(x.to(exact), gain.shape, scales, epsilon).to(x.dtype)
    if torch.is_grad_enabled() and (x.requires_grad or gain.requires_grad):
        result: Tensor = _RMSNorm.apply(x.contiguous(), scales, epsilon)  # type: ignore[no-untyped-call]
        return result
    engine = engine_of(backend)
    out: Tensor = engine.rms_norm(x.contiguous(), scales.contiguous(), epsilon, keeps_scale=False)[0]
    return out


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, gain: Tensor, epsilon: float) -> Tensor:
        out, scale = engine_of(backend_of(x.device, x.dtype)).rms_norm(x, gain, epsilon, keeps_scale=True)
        ctx.save_for_backward(x, gain, scale)
        result: Tensor = out
        return result

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        saved = ctx.saved_tensors
        engine = engine_of(backend_of(grad.device, grad.dtype))
        return *engine.rms_norm_backward(grad.contiguous(), *saved, ctx.needs_input_grad[:2]), None

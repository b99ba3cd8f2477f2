"""Cross-entropy of every row: reads the logits twice and writes their gradient once."""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from workbench_kernels.backend import backend_of, engine_of
from workbench_kernels.tracing import is_traced

__all__ = ["cross_entropy"]


def cross_entropy(logits: Float[Tensor, "N V"], target: Int[Tensor, "N"]) -> Float[Tensor, "N"]:
    """Cross-entropy [nat] of every row, in float32 (float64 for float64); NaN where the target is no class.

    The probabilities are not kept: backward makes them again from the logits and one number per row.

    Args:
        target: class of each row; a row whose target is outside of 0 to V - 1 is not scored.

    Raises:
        ValueError: shapes that do not fit.
    """
    if logits.dim() != 2 or target.shape != logits.shape[:1]:
        raise ValueError(
            f"logits must be rows x classes with one target for each row, got {tuple(logits.shape)} and "
            f"{tuple(target.shape)}; flatten both"
        )
    target = target.long()
    if is_traced(logits, target) or logits.numel() == 0 or backend_of(logits.device, logits.dtype).name != "cpp":
        is_scored = (target >= 0) & (target < logits.shape[1])
        exact = logits if logits.dtype == torch.float64 else logits.float()
        loss = F.cross_entropy(exact, torch.where(is_scored, target, -100), reduction="none")
        return loss.masked_fill(~is_scored, torch.nan)
    result: Tensor = _CrossEntropy.apply(logits.contiguous(), target.contiguous())  # type: ignore[no-untyped-call]
    return result


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, target: Tensor) -> Tensor:
        loss, log_sum = engine_of(backend_of(logits.device, logits.dtype)).cross_entropy(logits, target)
        ctx.save_for_backward(logits, target, log_sum)
        result: Tensor = loss
        return result

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        saved = ctx.saved_tensors
        engine = engine_of(backend_of(saved[0].device, saved[0].dtype))
        return engine.cross_entropy_backward(grad.contiguous(), *saved), None

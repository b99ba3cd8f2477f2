"""From logits to the K experts of each token, with a hand-written backward."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from workbench_kernels.backend import backend_of, engine_of
from workbench_kernels.tracing import is_traced

__all__ = ["topk_gate"]

# what DeepSeek's code adds to the sum of weights.
_TINY = 1e-20


def topk_gate(
    logits: Float[Tensor, "T E"],
    top_k: int,
    *,
    score: str = "softmax",
    bias: Float[Tensor, "E"] | None = None,
    normalize: bool = False,
    scale: float = 1.0,
) -> tuple[Float[Tensor, "T K"], Int[Tensor, "T K"]]:
    """Weights and ids of each token's K experts with the highest scores, best first.

    Scores and weights are in float32 (float64 for float64). The gradient is that of the weights; neither the
    choice nor the bias has one. On a CPU the lower index comes first where two are equal; without a bias the logits
    are compared, which tell apart what rounding makes equal among the scores.

    Args:
        score: `softmax` over all experts, or `sigmoid` of each.
        bias: added to the scores for the choice only.
        normalize: divides the weights by their sum.
        scale: multiplies the weights.

    Raises:
        ValueError: shapes or options that do not fit.
    """
    if logits.dim() != 2 or not 1 <= top_k <= logits.shape[1]:
        raise ValueError(
            f"top_k must be between 1 and the number of experts, got {top_k} for logits {tuple(logits.shape)}; "
            "logits have one row per token"
        )
    if score not in ("softmax", "sigmoid"):
        raise ValueError(f"score must be softmax or sigmoid, got {score!r}")
    if bias is not None and bias.shape != logits.shape[1:]:
        raise ValueError(f"bias must have one number per expert, got {tuple(bias.shape)} for {tuple(logits.shape)}")
    # a tracer first: it must not follow the look-up of the engine.
    backend = None if is_traced(logits) else backend_of(logits.device, logits.dtype)
    if backend is None or backend.name != "cpp" or logits.numel() == 0:
        weight, expert = _TopKGate.apply(logits, top_k, score, bias, normalize, scale)
        return weight, expert
    logits, bias = logits.contiguous(), None if bias is None else bias.detach().float().contiguous()
    if torch.is_grad_enabled() and logits.requires_grad:
        weight, expert = _CompiledTopKGate.apply(logits, top_k, score, bias, normalize, scale)
        return weight, expert
    engine = engine_of(backend)
    weight, expert, _ = engine.topk_gate(logits, top_k, score, bias, normalize, scale, keeps_shift=False)
    return weight, expert


class _CompiledTopKGate(torch.autograd.Function):
    """Backward makes the scores again from the logits: kept are two numbers of a token, and its choice."""

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, top_k: int, score: str, bias: Tensor | None, normalize: bool, scale: float
    ) -> tuple[Tensor, Tensor]:
        engine = engine_of(backend_of(logits.device, logits.dtype))
        weight, expert, shift = engine.topk_gate(logits, top_k, score, bias, normalize, scale, keeps_shift=True)
        ctx.options = (score, normalize, scale)
        ctx.mark_non_differentiable(expert)
        ctx.save_for_backward(logits, expert, shift)
        return weight, expert

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        engine = engine_of(backend_of(grad.device, ctx.saved_tensors[0].dtype))
        dlogits: Tensor = engine.topk_gate_backward(grad.contiguous(), *ctx.saved_tensors, *ctx.options)
        return dlogits, None, None, None, None, None


class _TopKGate(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, top_k: int, score: str, bias: Tensor | None, normalize: bool, scale: float
    ) -> tuple[Tensor, Tensor]:
        exact = torch.float64 if logits.dtype == torch.float64 else torch.float32
        scores = logits.softmax(-1, dtype=exact) if score == "softmax" else logits.to(exact).sigmoid()
        chosen, expert = (scores if bias is None else scores + bias).topk(top_k, dim=-1)
        if bias is not None:
            chosen = scores.gather(1, expert)
        total = chosen.sum(-1, keepdim=True).add_(_TINY) if normalize else None
        ctx.score, ctx.scale, ctx.dtype = score, scale, logits.dtype
        ctx.mark_non_differentiable(expert)
        weight = chosen if total is None else chosen / total
        weight = weight if scale == 1.0 else weight * scale
        # what is given away may be changed by its owner: a saved tensor must be another then.
        ctx.save_for_backward(scores, expert, chosen if chosen is not weight else None, total)
        return weight, expert

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        scores, expert, chosen, total = ctx.saved_tensors
        chosen = scores.gather(1, expert) if chosen is None else chosen
        if ctx.scale != 1.0:
            grad = grad * ctx.scale
        if total is not None:
            grad = (grad - (grad * chosen).sum(-1, keepdim=True) / total) / total
        push = grad * chosen
        if ctx.score == "softmax":
            # every expert gets its share of the sum; the chosen ones, each once per token, their own on top.
            result = scores * push.sum(-1, keepdim=True).neg_()
            result.scatter_add_(1, expert, push)
        else:
            result = torch.zeros_like(scores).scatter_(1, expert, push * (1 - chosen))
        return result.to(ctx.dtype), None, None, None, None, None

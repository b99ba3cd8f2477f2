"""Causal attention of whole sequences, forward and backward, with the rotation of queries and keys inside."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import scaled_dot_product_attention

from workbench_kernels.backend import autocast_inputs, backend_of, engine_of
from workbench_kernels.tracing import is_traced

__all__ = ["attention"]


def attention(
    query: Float[Tensor, "B S H Q"],
    key: Float[Tensor, "B S G Q"],
    value: Float[Tensor, "B S G Q"],
    *,
    turn: tuple[Float[Tensor, "T Q"], Float[Tensor, "T Q"]] | None = None,
) -> Float[Tensor, "B S H Q"]:
    """What every query gets from the keys up to its own, scores divided by the root of the head's width.

    Neighbouring query heads share a key head. On a CPU one C++ kernel turns, weighs and sums in float32; elsewhere, in
    float64 and under a tracer it is a rotation and PyTorch's own attention.

    Args:
        turn: cosine and sine of every token's angles, B S rows in the order of the sequences; channel i and channel
            i + Q / 2 are a pair. None when queries and keys are turned already.

    Raises:
        ValueError: shapes, dtypes or devices that do not fit.

    Source: arXiv 1706.03762, section 3.2.1; rotation of arXiv 2104.09864, section 3.4.2, in halves; the weights that
        backward makes again, arXiv 2205.14135, section 3.1.
    """
    query, key, value = autocast_inputs(query, key, value)
    _check(query, key, value, turn)
    if query.numel() == 0 or is_traced(query, key, value, *(turn or ())):
        return _by_pytorch(query, key, value, turn)
    backend = backend_of(query.device, query.dtype)
    if backend.name != "cpp":
        return _by_pytorch(query, key, value, turn)
    inputs = query.contiguous(), key.contiguous(), value.contiguous()
    angles = (None, None) if turn is None else [part.detach().float().contiguous() for part in turn]
    if torch.is_grad_enabled() and any(one.requires_grad for one in inputs):
        result: Tensor = _Attention.apply(*inputs, *angles)  # type: ignore[no-untyped-call]
        return result
    out: Tensor = engine_of(backend).attention(*inputs, _pair(*angles), keeps_scale=False)[0]
    return out


def _check(query: Tensor, key: Tensor, value: Tensor, turn: tuple[Tensor, Tensor] | None) -> None:
    fits = (
        query.dim() == key.dim() == 4
        and key.shape == value.shape
        and query.shape[:2] == key.shape[:2]
        and query.shape[3] == key.shape[3] > 0
        and key.shape[2] > 0
        and query.shape[2] % key.shape[2] == 0
    )
    if not fits:
        raise ValueError(
            "query must be B x S x H x Q, key and value B x S x G x Q with G a divisor of H, got "
            f"{tuple(query.shape)}, {tuple(key.shape)} and {tuple(value.shape)}; tokens come before heads"
        )
    if not (query.dtype == key.dtype == value.dtype) or not query.dtype.is_floating_point:
        raise ValueError(
            f"query, key and value must have one floating-point dtype, got {query.dtype}, {key.dtype} and "
            f"{value.dtype}; cast them, or use torch.autocast"
        )
    if len({part.device for part in (query, key, value, *(turn or ()))}) > 1:
        raise ValueError(
            f"all tensors must be on one device, got query on {query.device}, key on {key.device} and value on "
            f"{value.device}; move them, and the turn, to that of query"
        )
    if turn is None:
        return
    angles = (query.shape[0] * query.shape[1], query.shape[3])
    if any(part.shape != angles for part in turn):
        raise ValueError(
            f"turn must be cosine and sine of {angles[0]} tokens and {angles[1]} channels, got "
            f"{' and '.join(str(tuple(part.shape)) for part in turn)}; give every token of every sequence its row"
        )
    if angles[1] % 2:
        raise ValueError(f"a rotation turns pairs of channels, got heads of {angles[1]}; use an even head width")


def _pair(cosine: Tensor | None, sine: Tensor | None) -> tuple[Tensor, Tensor] | None:
    return None if cosine is None or sine is None else (cosine, sine)


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, cosine: Tensor | None, sine: Tensor | None
    ) -> Tensor:
        engine = engine_of(backend_of(query.device, query.dtype))
        out, scale = engine.attention(query, key, value, _pair(cosine, sine), keeps_scale=True)
        ctx.save_for_backward(query, key, value, cosine, sine, out, scale)
        result: Tensor = out
        return result

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, cosine, sine, out, scale = ctx.saved_tensors
        engine = engine_of(backend_of(grad.device, grad.dtype))
        turn, needs = _pair(cosine, sine), ctx.needs_input_grad[:3]
        return *engine.attention_backward(grad.contiguous(), query, key, value, turn, out, scale, needs), None, None


def _by_pytorch(query: Tensor, key: Tensor, value: Tensor, turn: tuple[Tensor, Tensor] | None) -> Tensor:
    mixed = scaled_dot_product_attention(
        _turned(query, turn).transpose(1, 2),
        _turned(key, turn).transpose(1, 2),
        value.transpose(1, 2),
        is_causal=True,
        enable_gqa=query.shape[2] != key.shape[2],
    )
    return mixed.transpose(1, 2)


def _turned(x: Tensor, turn: tuple[Tensor, Tensor] | None) -> Tensor:
    if turn is None:
        return x
    wide = x if x.dtype == torch.float64 else x.float()
    cosine, sine = (part.to(wide.dtype).view(*x.shape[:2], 1, x.shape[3]) for part in turn)
    first, second = wide.chunk(2, dim=-1)
    return (wide * cosine + torch.cat((-second, first), dim=-1) * sine).to(x.dtype)

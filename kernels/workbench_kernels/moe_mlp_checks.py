"""What a call of `moe_mlp` must look like, and the words for what does not."""

import torch
from torch import Tensor

from workbench_kernels.plan import RoutingPlan

__all__ = ["check_layer"]

_ACTIVATIONS = ("silu", "gelu", "gelu_tanh", "relu")
_SAVES = ("hidden", "input")


def check_layer(
    x: Tensor,
    weight: Tensor,
    gate_up: Tensor,
    down: Tensor,
    plan: RoutingPlan,
    *,
    activation: str,
    save: str,
    into: tuple[Tensor, Tensor] | None,
) -> None:
    """Nothing, for a call that fits together.

    Raises:
        ValueError: with what was expected, what came, and what to do.
    """
    if x.dim() != 2 or weight.dim() != 2 or gate_up.dim() != 3 or down.dim() != 3:
        raise ValueError(
            "x, weight, gate_up and down must have 2, 2, 3 and 3 dimensions, got "
            f"{x.dim()}, {weight.dim()}, {gate_up.dim()} and {down.dim()}; flatten tokens to one row each"
        )
    if not (x.dtype == gate_up.dtype == down.dtype):
        raise ValueError(
            f"x, gate_up and down must have one dtype, got {_dtypes(x, gate_up, down)}; "
            "cast them, or use torch.autocast"
        )
    if not x.dtype.is_floating_point or not weight.dtype.is_floating_point:
        raise ValueError(f"x and weight must be floating point, got {_dtypes(x, weight)}; cast them")
    _check_shapes(x, weight, gate_up, down, plan)
    if not (x.device == weight.device == gate_up.device == down.device == plan.offsets.device):
        devices = ", ".join(str(one.device) for one in (x, weight, gate_up, down, plan.offsets))
        raise ValueError(
            f"x, weight, gate_up, down and the plan must be on one device, got {devices}; move them to that of x"
        )
    if activation not in _ACTIVATIONS:
        raise ValueError(f"activation must be one of {', '.join(_ACTIVATIONS)}, got {activation!r}")
    if save not in _SAVES:
        raise ValueError(f"save must be hidden (faster) or input (less memory), got {save!r}")
    if into is not None:
        _check_into(into, gate_up, down)


def _check_shapes(x: Tensor, weight: Tensor, gate_up: Tensor, down: Tensor, plan: RoutingPlan) -> None:
    experts, hidden, width = gate_up.shape
    if width != x.shape[1] or hidden % 2 or down.shape != (experts, width, hidden // 2):
        raise ValueError(
            "x, gate_up and down must be T x D, E x 2F x D and E x D x F, got "
            f"{tuple(x.shape)}, {tuple(gate_up.shape)} and {tuple(down.shape)}; "
            "transpose the matrices if theirs are the other way round"
        )
    if plan.num_experts != experts:
        raise ValueError(
            f"the plan must be of the {experts} experts that gate_up holds, got one of {plan.num_experts}; "
            "pass that number to plan_routing"
        )
    if weight.shape != plan.row_of.shape or x.shape[0] != plan.num_tokens:
        raise ValueError(
            f"x and weight must have the plan's {plan.num_tokens} tokens and {plan.top_k} slots, got "
            f"x {tuple(x.shape)} and weight {tuple(weight.shape)}; plan the same tokens"
        )


def _check_into(into: tuple[Tensor, Tensor], gate_up: Tensor, down: Tensor) -> None:
    for buffer, matrices, name in zip(into, (gate_up, down), ("gate_up", "down"), strict=True):
        fits = buffer.shape == matrices.shape and buffer.device == matrices.device and buffer.is_contiguous()
        if not fits or buffer.dtype not in (matrices.dtype, torch.float32) or buffer.requires_grad:
            raise ValueError(
                f"into must hold contiguous buffers like gate_up and down, in their dtype or float32, got for {name} "
                f"{_dtypes(buffer)} {tuple(buffer.shape)} on {buffer.device}, for {_dtypes(matrices)} "
                f"{tuple(matrices.shape)} on {matrices.device}; torch.zeros_like({name}) would do"
            )


def _dtypes(*tensors: Tensor) -> str:
    return ", ".join(str(tensor.dtype).removeprefix("torch.") for tensor in tensors)

"""AdamW over named groups, so that a router can come and go with its own state."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from workbench.model.transformer import Transformer
from workbench.train.config import TrainConfig

__all__ = ["build_optimizer", "clip_gradients", "is_of_router", "named_states", "regroup", "set_learning_rate"]

_BODY, _ROUTER = ("matrices", "vectors"), ("router matrices", "router vectors")


def build_optimizer(model: Transformer, config: TrainConfig) -> torch.optim.AdamW:
    """Fused AdamW whose groups keep matrices, which decay, from vectors, and routers from the rest."""
    groups = [*_groups(model, config, of_router=False), *_groups(model, config, of_router=True)]
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=(config.beta1, config.beta2), fused=True)


def clip_gradients(model: nn.Module, limit: float) -> float:
    """The gradient norm before clipping; gradients are scaled down where it is above the limit, 0 for no limit."""
    return float(torch.nn.utils.clip_grad_norm_(model.parameters(), limit or math.inf))


def is_of_router(name: str) -> bool:
    """Whether a tensor of the model belongs to a router or its extra experts, by its name."""
    return any(part in name for part in (".router.", ".later_routers.", ".extra_experts.")) or name.startswith(
        "shared_part."
    )


def regroup(optimizer: torch.optim.AdamW, model: Transformer, config: TrainConfig) -> None:
    """Take in the parameters that the model has now; what stayed keeps its state, what is gone loses it."""
    present = set(model.parameters())
    for parameter in [parameter for parameter in optimizer.state if parameter not in present]:
        del optimizer.state[parameter]
    optimizer.param_groups.clear()
    for group in [*_groups(model, config, of_router=False), *_groups(model, config, of_router=True)]:
        optimizer.add_param_group(group)


def set_learning_rate(optimizer: torch.optim.AdamW, rate: float) -> None:
    """The same learning rate for every group."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def named_states(model: nn.Module, optimizer: torch.optim.AdamW) -> dict[str, Tensor]:
    """The optimiser's tensors under `parameter name|field`, ready for safetensors."""
    return {
        f"{name}|{key}": value
        for name, parameter in model.named_parameters()
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def _groups(model: Transformer, config: TrainConfig, *, of_router: bool) -> list[dict[str, Any]]:
    own = [p for name, p in model.named_parameters() if is_of_router(name) == of_router]
    matrices, vectors = [p for p in own if p.dim() >= 2], [p for p in own if p.dim() < 2]
    names = _ROUTER if of_router else _BODY
    decays = (config.weight_decay, 0.0)
    parts = zip(names, (matrices, vectors), decays, strict=True)
    return [{"name": name, "params": params, "weight_decay": decay} for name, params, decay in parts if params]

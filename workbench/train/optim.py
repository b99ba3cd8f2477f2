"""AdamW over named groups, so that a router can come and go with its own state."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from workbench.model.transformer import Transformer
from workbench.train.config import TrainConfig

__all__ = ["build_optimizer", "drop_parameters", "named_states", "set_learning_rate"]


def build_optimizer(model: Transformer, config: TrainConfig) -> torch.optim.AdamW:
    """Fused AdamW with three groups: matrices decay, vectors do not, routers stand apart."""
    optimizer = torch.optim.AdamW(
        [{"params": [], "name": "empty"}],
        lr=config.learning_rate,
        betas=(config.beta1, config.beta2),
        fused=True,
    )
    optimizer.param_groups.clear()
    body = [(name, p) for name, p in model.named_parameters() if not is_router(name)]
    _add(optimizer, "matrices", (p for _, p in body if p.dim() >= 2), config.weight_decay)
    _add(optimizer, "vectors", (p for _, p in body if p.dim() < 2), 0.0)
    add_router_group(optimizer, model, config)
    return optimizer


def is_router(name: str) -> bool:
    """Whether a parameter of the model belongs to a router, by its name."""
    return ".router." in name or name.startswith("shared_part.")


def add_router_group(optimizer: torch.optim.AdamW, model: Transformer, config: TrainConfig) -> None:
    """A group for the routers' parameters, without state yet."""
    gates = [p for name, p in model.named_parameters() if is_router(name)]
    _add(optimizer, "routers", (p for p in gates if p.dim() >= 2), config.weight_decay)
    _add(optimizer, "router vectors", (p for p in gates if p.dim() < 2), 0.0)


def drop_parameters(optimizer: torch.optim.AdamW, names: Iterable[str]) -> None:
    """Forget the groups with these names, and the state of their parameters."""
    dropped = set(names)
    for group in [g for g in optimizer.param_groups if g["name"] in dropped]:
        for parameter in group["params"]:
            optimizer.state.pop(parameter, None)
        optimizer.param_groups.remove(group)


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


def _add(optimizer: torch.optim.AdamW, name: str, parameters: Iterable[nn.Parameter], decay: float) -> None:
    chosen = list(parameters)
    if chosen:
        optimizer.add_param_group({"params": chosen, "name": name, "weight_decay": decay})

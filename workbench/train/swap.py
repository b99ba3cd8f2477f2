"""Exchange the routers of a model in training; experts stay."""

from dataclasses import dataclass

import torch
from torch import Tensor

from workbench.core.html import facts
from workbench.core.spec import Spec
from workbench.model.transformer import Transformer
from workbench.train.config import TrainConfig
from workbench.train.optim import add_router_group, drop_parameters, is_router

__all__ = ["SwapReport", "swap_routers"]


@dataclass(frozen=True, kw_only=True)
class SwapReport:
    """What a router swap kept and what it made anew.

    Args:
        before: the old router.
        after: the new router.
        carried: router tensors whose name and shape agree; values and optimiser state went along.
        fresh: router tensors that start anew.
        num_experts: experts of each layer, all kept with their optimiser state.
    """

    before: str
    after: str
    carried: tuple[str, ...]
    fresh: tuple[str, ...]
    num_experts: int

    def __str__(self) -> str:
        new = f"{len(self.fresh)} router tensors start anew" if self.fresh else "no router tensor starts anew"
        return (
            f"{self.before} -> {self.after}: all {self.num_experts} experts per layer kept with their optimiser state; "
            f"{len(self.carried)} router tensors carried over with theirs; {new}"
        )

    def _repr_html_(self) -> str:
        rows = {
            "experts per layer": f"{self.num_experts}, kept with their optimiser state",
            "carried over": ", ".join(self.carried) or "no router tensor",
            "starts anew": ", ".join(self.fresh) or "nothing",
        }
        return facts(f"router swap: {self.before} to {self.after}", rows)


def swap_routers(
    model: Transformer, optimizer: torch.optim.AdamW, config: TrainConfig, router: Spec, *, carry: bool = True
) -> SwapReport:
    """Give every MoE layer the new router; on an error the old ones stay.

    Args:
        carry: take over router tensors, and their optimiser state, where name and shape agree.

    Raises:
        LookupError: unknown router.
        ValueError: arguments that do not fit, or a model without experts.
    """
    layers = list(model.moe_layers())
    if not layers:
        raise ValueError("this model has no MoE layer, so it has no router to swap")
    before = str(model.config.router)
    old = _router_tensors(model)
    states = {name: dict(optimizer.state.get(tensor, {})) for name, tensor in old.items()}
    model.set_router(router, config.seed)
    carried: list[str] = []
    fresh: list[str] = []
    for name, tensor in _router_tensors(model).items():
        if carry and name in old and old[name].shape == tensor.shape:
            tensor.data.copy_(old[name])
            carried.append(name)
        else:
            fresh.append(name)
    drop_parameters(optimizer, ("routers", "router vectors"))
    add_router_group(optimizer, model, config)
    for name in carried:
        parameter = _router_tensors(model)[name]
        if states[name]:
            optimizer.state[parameter] = states[name]
    return SwapReport(
        before=before,
        after=str(router),
        carried=tuple(carried),
        fresh=tuple(fresh),
        num_experts=model.config.num_experts,
    )


def _router_tensors(model: Transformer) -> dict[str, Tensor]:
    named = [*model.named_parameters(), *model.named_buffers()]
    return {name: tensor for name, tensor in named if is_router(name)}

"""Another router in a model that goes on training; its experts and their optimiser state stay."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from workbench.core.html import facts
from workbench.core.spec import Spec
from workbench.model.transformer import Transformer
from workbench.train.arguments import check_router
from workbench.train.config import TrainConfig
from workbench.train.optim import is_of_router, replace_router_groups

__all__ = ["RouterBackup", "SwapReport", "exchange_routers", "swap_routers"]

_MOST_NAMED = 6


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
            "carried over": _listed(self.carried) or "no router tensor",
            "starts anew": _listed(self.fresh) or "nothing",
        }
        return facts(f"router swap: {self.before} to {self.after}", rows)


class RouterBackup:
    """The routers of a model and what the optimiser knows of them, to be put back if a swap fails.

    Args:
        model: about to get other routers.
        optimizer: trains the model.
    """

    def __init__(self, model: Transformer, optimizer: torch.optim.AdamW):
        self._model, self._optimizer = model, optimizer
        self._config, self._shared_part = model.config, model.shared_part
        self._routers = [(layer, layer.router, layer.router_name) for layer in model.moe_layers()]
        self._groups = [dict(group) for group in optimizer.param_groups]
        self._state = {p: dict(optimizer.state[p]) for p in _router_parameters(model) if p in optimizer.state}

    def restore(self) -> None:
        """Everything as it was, down to the order of the optimiser's groups."""
        for parameter in _router_parameters(self._model):
            self._optimizer.state.pop(parameter, None)
        for layer, router, name in self._routers:
            layer.router, layer.router_name = router, name
        self._model.config, self._model.shared_part = self._config, self._shared_part
        self._optimizer.param_groups[:] = self._groups
        self._optimizer.state.update(self._state)


def swap_routers(
    model: Transformer,
    optimizer: torch.optim.AdamW,
    config: TrainConfig,
    router: Spec,
    *,
    carry: bool = True,
    trial: Callable[[], None] = lambda: None,
) -> SwapReport:
    """Give every MoE layer the new router; on an error nothing has changed.

    Args:
        carry: take over router tensors, and their optimiser state, where name and shape agree.
        trial: tries the new routers; what it raises undoes the swap.

    Raises:
        LookupError: unknown router.
        ValueError: arguments that do not fit, or a model without experts.
    """
    check_router(router)
    if not any(True for _ in model.moe_layers()):
        raise ValueError("this model has no MoE layer, so it has no router to swap")
    before, backup = str(model.config.router), RouterBackup(model, optimizer)
    old = dict(model.named_parameters())
    states: dict[str, Any] = {name: optimizer.state[p] for name, p in old.items() if p in optimizer.state}
    try:
        carried, fresh = exchange_routers(model, router, config.seed, carry=carry)
        replace_router_groups(optimizer, model, config)
        for name, parameter in model.named_parameters():
            if name in carried and name in states:
                optimizer.state[parameter] = states[name]
        trial()
    except BaseException:
        backup.restore()
        raise
    return SwapReport(
        before=before,
        after=str(router),
        carried=carried,
        fresh=fresh,
        num_experts=model.config.num_experts,
    )


def exchange_routers(
    model: Transformer, router: Spec, seed: int, *, carry: bool = True
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """New routers in a model; the names of the tensors that were carried over, and of those that start anew.

    Args:
        seed: of the tensors that start anew.
        carry: take over tensors where name and shape agree; what is not saved with a model is not carried.
    """
    old = _router_tensors(model)
    model.set_router(router, seed)
    carried, fresh = [], []
    for name, tensor in _router_tensors(model).items():
        if carry and name in old and old[name].shape == tensor.shape:
            tensor.data.copy_(old[name])
            carried.append(name)
        else:
            fresh.append(name)
    return tuple(carried), tuple(fresh)


def _router_tensors(model: Transformer) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in model.state_dict().items() if is_of_router(name)}


def _router_parameters(model: Transformer) -> list[Tensor]:
    return [parameter for name, parameter in model.named_parameters() if is_of_router(name)]


def _listed(names: tuple[str, ...]) -> str:
    more = len(names) - _MOST_NAMED
    return ", ".join(names[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")

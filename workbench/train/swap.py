"""Another router in a model that goes on training; its experts and their optimiser state stay."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from workbench.analysis.routing_diff import RoutingDiff
from workbench.core.html import facts
from workbench.core.spec import Spec
from workbench.model.transformer import Transformer
from workbench.train.arguments import check_router
from workbench.train.config import TrainConfig
from workbench.train.optim import is_of_router, regroup

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
        num_experts: experts of each layer.
        are_experts_kept: they stayed, with their optimiser state; else the router needed others, made anew.
        stall_seconds: how long training stood still [s].
        diff: how the probe text was routed before and after; None where it was not looked at.
    """

    before: str
    after: str
    carried: tuple[str, ...]
    fresh: tuple[str, ...]
    num_experts: int
    are_experts_kept: bool = True
    stall_seconds: float = 0.0
    diff: RoutingDiff | None = None

    def __str__(self) -> str:
        new = f"{len(self.fresh)} router tensors start anew" if self.fresh else "no router tensor starts anew"
        return (
            f"{self.before} -> {self.after}: {self._experts()}; "
            f"{len(self.carried)} router tensors carried over with theirs; {new}"
        )

    def _experts(self) -> str:
        if self.are_experts_kept:
            return f"all {self.num_experts} experts per layer kept with their optimiser state"
        return f"all {self.num_experts} experts per layer made anew, because this router needs another kind"

    def _repr_html_(self) -> str:
        rows = {
            "experts": self._experts(),
            "carried over": _listed(self.carried) or "no router tensor",
            "starts anew": _listed(self.fresh) or "nothing",
            "training stood still": f"{self.stall_seconds * 1000:.0f} ms",
        }
        own = facts(f"router swap: {self.before} to {self.after}", rows)
        return own if self.diff is None else own + self.diff._repr_html_()


class RouterBackup:
    """The routers of a model and what the optimiser knows of them, to be put back later.

    Experts are part of it only where a swap made other experts; else they keep what they learn.

    Args:
        model: about to get other routers.
        optimizer: trains the model.
    """

    def __init__(self, model: Transformer, optimizer: torch.optim.AdamW):
        self._model, self._optimizer = model, optimizer
        self._config, self._shared_part = model.config, model.shared_part
        self._layers = [(layer, layer.parts, layer.body, layer.experts) for layer in model.moe_layers()]
        own = [parameter for name, parameter in model.named_parameters() if is_of_router(name) or ".experts." in name]
        # held apart: the optimiser writes into its tensors in place.
        self._state = {p: _copied(optimizer.state[p]) for p in own if p in optimizer.state and p in self._routers()}
        self._expert_state = {p: optimizer.state[p] for p in own if p in optimizer.state and p not in self._state}

    def restore(self, config: TrainConfig) -> None:
        """The old routers with their optimiser state; the experts as they are now, if they are still the same."""
        for layer, parts, body, experts in self._layers:
            layer.install(parts)
            layer.body, layer.experts = body, experts
        self._model.config, self._model.shared_part = self._config, self._shared_part
        present = set(self._model.parameters())
        for parameter, state in {**self._expert_state, **self._state}.items():
            if parameter in present and (parameter in self._state or parameter not in self._optimizer.state):
                self._optimizer.state[parameter] = state
        regroup(self._optimizer, self._model, config)

    @property
    def router(self) -> Spec:
        """The router that is kept here."""
        return self._config.router

    def _routers(self) -> set[Tensor]:
        return {p for name, p in self._model.named_parameters() if is_of_router(name)}


def swap_routers(
    model: Transformer,
    optimizer: torch.optim.AdamW,
    config: TrainConfig,
    router: Spec,
    *,
    carry: bool = True,
    rebuild_experts: bool = False,
    trial: Callable[[], None] = lambda: None,
) -> tuple[SwapReport, RouterBackup]:
    """What was exchanged, and the old routers; on failure everything is as it was.

    Args:
        carry: take over router tensors where name and shape agree.
        rebuild_experts: make experts anew where the router requires another kind.
        trial: tries the new routers; what it raises undoes the swap.

    Raises:
        LookupError: unknown router.
        ValueError: arguments that do not fit, a model without experts, or experts that do not fit.
    """
    check_router(router)
    if not any(True for _ in model.moe_layers()):
        raise ValueError("this model has no MoE layer, so it has no router to swap")
    before, backup = str(model.config.router), RouterBackup(model, optimizer)
    kept = [layer.experts for layer in model.moe_layers()]
    old = dict(model.named_parameters())
    states: dict[str, Any] = {name: optimizer.state[p] for name, p in old.items() if p in optimizer.state}
    try:
        carried, fresh = exchange_routers(model, router, config.seed, carry=carry, rebuild_experts=rebuild_experts)
        regroup(optimizer, model, config)
        for name, parameter in model.named_parameters():
            if name in carried and name in states:
                optimizer.state[parameter] = _copied(states[name])
        trial()
    except BaseException:
        backup.restore(config)
        raise
    are_kept = all(layer.experts is experts for layer, experts in zip(model.moe_layers(), kept, strict=True))
    report = SwapReport(
        before=before,
        after=str(router),
        carried=carried,
        fresh=fresh,
        num_experts=model.config.num_experts,
        are_experts_kept=are_kept,
    )
    return report, backup


def exchange_routers(
    model: Transformer, router: Spec, seed: int, *, carry: bool = True, rebuild_experts: bool = False
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """New routers in a model; the names of the tensors that were carried over, and of those that start anew.

    Args:
        seed: of the tensors that start anew.
        carry: take over tensors where name and shape agree; what is not saved with a model is not carried.
        rebuild_experts: make experts anew where the router requires another kind.

    Raises:
        ValueError: a router that requires experts of another kind.
    """
    old = _router_tensors(model)
    model.set_router(router, seed, rebuild_experts=rebuild_experts)
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


def _copied(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in state.items()}


def _listed(names: tuple[str, ...]) -> str:
    more = len(names) - _MOST_NAMED
    return ", ".join(names[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")

"""The place where a transformers model calls its experts: heard, forced, handed to others."""

import inspect
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Any, Protocol, final, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from workbench.model.host.layers import HostLayer

__all__ = ["Decision", "ExpertsPlug", "Seam"]


@runtime_checkable
class ExpertsPlug(Protocol):
    """Computes a layer's experts in place of the model: their weighted sum for every row."""

    def __call__(
        self,
        layer: int,
        hidden: Float[Tensor, "T D"],
        expert: Int[Tensor, "T K"],
        weight: Float[Tensor, "T K"],
        module: nn.Module,
    ) -> Float[Tensor, "T D"]:
        """The rows after their experts.

        Args:
            layer: index among the MoE layers.
            module: the experts' module, for its gate and its options; its parameters may be empty.
        """


@dataclass(frozen=True, kw_only=True, eq=False)
class Decision:
    """What a router gave its experts in one pass, padding included.

    Args:
        expert: chosen experts; where a decision is forced, -1 leaves the row to the router.
        weight: factor of each expert's output.
        logit: the router's scores, where it shows them.
    """

    expert: Int[Tensor, "T K"]
    weight: Float[Tensor, "T K"]
    logit: Float[Tensor, "T E"] | None = None


class _Ear(threading.local):
    """What one thread hears; another thread that runs the same model hears its own pass only."""

    heard: dict[int, Decision] | None = None
    forced: Mapping[int, Decision] | None = None
    beside: tuple[Any, ...] = ()


@final
class Seam:
    """An experts implementation of transformers for one model.

    Args:
        implementation: who computes where nothing is plugged in: `eager`, or a name that transformers knows.

    Attributes:
        name: under which transformers knows this seam, for as long as it lives.
        plug: computes instead; None for nobody.

    Raises:
        ModuleNotFoundError: transformers is not installed.
        ValueError: transformers knows no such implementation.
    """

    def __init__(self, implementation: str = "eager"):
        table = import_module("transformers.integrations.moe").ALL_EXPERTS_FUNCTIONS
        known = ("eager", *(name for name in table if not name.startswith("workbench-host-")))
        if implementation not in known:
            raise ValueError(f"implementation must be one of {', '.join(known)}, got {implementation!r}")
        self.implementation = implementation
        self.name = f"workbench-host-{id(self):x}"
        self.plug: ExpertsPlug | None = None
        self._computed: Callable[..., Tensor] = _eager
        if implementation != "eager":
            self._computed = table[implementation]
        self._layer_of: dict[int, int] = {}
        self._ear = _Ear()
        # transformers' table lives as long as the process: it must not keep the model alive.
        table[self.name] = partial(_enter, weakref.ref(self))
        weakref.finalize(self, table.pop, self.name, None)

    def attach(self, model: nn.Module, layers: Sequence[HostLayer]) -> None:
        """Take a seat at every layer of the model that was built with this seam's name."""
        self._layer_of = {id(layer.module): layer.index for layer in layers}
        for layer in layers:
            for child in model.get_submodule(layer.block).children():
                if child is not layer.module:
                    child.register_forward_hook(partial(_overhear, weakref.ref(self)))

    @contextmanager
    def listening(self, forced: Mapping[int, Decision] | None = None) -> Iterator[dict[int, Decision]]:
        """Within it, this thread's calls are heard, by layer, and forced where a decision is given."""
        ear = self._ear
        if ear.heard is not None:
            raise RuntimeError("a pass of this model is being heard on this thread; finish it before the next")
        ear.heard, ear.forced = {}, forced
        try:
            yield ear.heard
        finally:
            ear.heard, ear.forced, ear.beside = None, None, ()

    def run(self, module: nn.Module, hidden: Tensor, expert: Tensor, weight: Tensor) -> Tensor:
        """The experts of one layer, called by the model.

        Raises:
            LookupError: the module is not of this model, or holds no experts and nothing is plugged in.
            ValueError: a layer is called twice in one pass, or a forced decision has another shape.
        """
        if id(module) not in self._layer_of:
            raise LookupError(
                f"{type(module).__name__} is not of the model that this host opened (a copy of it?); "
                "open the folder again"
            )
        layer, ear = self._layer_of[id(module)], self._ear
        if ear.heard is not None:
            logit = _logit(ear.beside, expert)
            ear.beside = ()
            if ear.forced is not None:
                expert, weight = _imposed(ear.forced[layer], expert, weight, layer)
            if layer in ear.heard:
                raise ValueError(f"MoE layer {layer} ran twice in one pass; models that loop cannot be recorded")
            ear.heard[layer] = Decision(expert=expert.detach(), weight=weight.detach(), logit=logit)
        if self.plug is not None:
            return self.plug(layer, hidden, expert, weight, module)
        if any(parameter.is_meta for parameter in module.parameters()):
            raise LookupError(
                "the experts were left on disk and nobody computes them; plug experts in, or open the folder "
                "with_experts=True"
            )
        return self._computed(module, hidden, expert, weight)

    def overhear(self, output: object) -> None:
        """Keep what a module beside the experts returned, until they are called: it may be the router."""
        if self._ear.heard is not None and isinstance(output, tuple):
            self._ear.beside = output


def _overhear(seam: "weakref.ref[Seam]", module: nn.Module, args: Any, output: Any) -> None:
    # the model must not hold the seam: a copy of the model would copy it, too.
    if (alive := seam()) is not None:
        alive.overhear(output)


def _enter(
    seam: "weakref.ref[Seam]", module: nn.Module, hidden_states: Tensor, top_k_index: Tensor, top_k_weights: Tensor
) -> Tensor:
    alive = seam()
    if alive is None:
        raise LookupError("the host of this model is gone; keep the HostModel for as long as its model runs")
    return alive.run(module, hidden_states, top_k_index, top_k_weights)


def _eager(module: nn.Module, hidden: Tensor, expert: Tensor, weight: Tensor) -> Tensor:
    # the class's own forward lies beneath transformers' decorator.
    result: Tensor = inspect.unwrap(type(module).forward)(module, hidden, expert, weight)
    return result


def _logit(beside: tuple[Any, ...], expert: Tensor) -> Tensor | None:
    """The router's logits: beside the very ids that it chose, in the order all routers of transformers use."""
    if len(beside) != 3 or beside[2] is not expert or not isinstance(beside[0], Tensor):
        return None
    logit = beside[0].detach()
    return logit.float() if logit.shape[:1] == expert.shape[:1] and logit.dim() == 2 else None


def _imposed(forced: Decision, expert: Tensor, weight: Tensor, layer: int) -> tuple[Tensor, Tensor]:
    if forced.expert.shape != expert.shape:
        raise ValueError(
            f"expected a routing of {expert.shape[0]} tokens with {expert.shape[1]} experts each in MoE layer "
            f"{layer}, got {forced.expert.shape[0]} with {forced.expert.shape[1]}; replay a trace of this model"
        )
    is_given = (forced.expert >= 0).to(expert.device)
    chosen = torch.where(is_given, forced.expert.to(expert), expert)
    return chosen, torch.where(is_given, forced.weight.to(weight), weight)

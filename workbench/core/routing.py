"""The decision of a router: one frozen object that applies experts to tokens."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Bool, Float, Int
from torch import Tensor

from workbench.core.context import RouteContext
from workbench.core.html import facts

__all__ = ["Assignments", "ExpertBody", "Routing"]


@runtime_checkable
class ExpertBody(Protocol):
    """What a routing needs of experts: call them, or run them with other tensors."""

    def tensors(self) -> tuple[Any, ...]:
        """The expert parameters, stacked over experts."""

    def run(self, tensors: tuple[Any, ...], x: Tensor, plan: Any, context: RouteContext) -> Tensor:
        """The experts' mathematics over the given tensors."""

    def __call__(self, x: Tensor, plan: Any, context: RouteContext) -> Tensor:
        """The experts' mathematics over their own tensors."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Assignments:
    """A routing as a flat list: what traces and views read.

    Args:
        token: index of the token.
        expert: index of the expert, extras after the model's own.
        weight: what the expert's output is multiplied by.
        kept: False where the assignment was lost to capacity.
    """

    token: Int[Tensor, "A"]
    expert: Int[Tensor, "A"]
    weight: Float[Tensor, "A"]
    kept: Bool[Tensor, "A"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Routing(ABC):
    """What a router decided for a batch of tokens.

    Args:
        num_experts: experts that could be chosen, a router's extras included.
        prob: normalised over the experts the router scores, float32.
        logit: raw output of the gate, float32.
        carry: what the same router one layer up may read.
        memory: router state of these tokens, kept in the KV cache.
        ahead: a guess of the next layer's experts, for traces and prefetchers only.
        loss_inputs: what only the router's own `losses` reads of this decision, by name.
    """

    num_experts: int
    prob: Float[Tensor, "T E"] | None = None
    logit: Float[Tensor, "T E"] | None = None
    carry: Tensor | None = None
    memory: Float[Tensor, "T W"] | None = None
    ahead: Int[Tensor, "T J"] | None = None
    loss_inputs: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    @abstractmethod
    def num_tokens(self) -> int:
        """Tokens that were routed."""

    @property
    @abstractmethod
    def demand(self) -> Int[Tensor, "E"]:
        """Rows asked of each expert, before capacity."""

    @property
    @abstractmethod
    def counts(self) -> Int[Tensor, "E"]:
        """Rows each expert computes, after capacity."""

    @abstractmethod
    def assignments(self) -> Assignments:
        """The decision as a flat list."""

    @abstractmethod
    def apply(self, x: Float[Tensor, "T D"], experts: ExpertBody, context: RouteContext) -> Float[Tensor, "T D"]:
        """The tokens after their experts, combined."""

    def _facts(self) -> Mapping[str, object]:
        demand = self.demand
        total = int(demand.sum())
        busiest = int(demand.argmax()) if total else 0
        share = int(demand[busiest]) / max(total, 1)
        dropped = total - int(self.counts.sum())
        return {
            "tokens": self.num_tokens,
            "experts": self.num_experts,
            "assignments": total,
            "dropped by capacity": f"{dropped} ({dropped / max(total, 1):.1%})",
            "busiest expert": f"{busiest} with {share:.1%} (even load {1 / self.num_experts:.1%})",
            "experts without a token": int((demand == 0).sum()),
        }

    def __repr__(self) -> str:
        inside = ", ".join(f"{key}={value}" for key, value in self._facts().items())
        return f"{type(self).__name__}({inside})"

    def _repr_html_(self) -> str:
        return facts(type(self).__name__, self._facts(), note="load counts assignments asked for, before capacity")

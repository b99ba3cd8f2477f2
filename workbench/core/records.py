"""Records that travel between floors; all frozen."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Int8
from torch import Tensor

from workbench.core.context import RouteContext
from workbench.core.html import facts
from workbench.core.routing import Routing

__all__ = [
    "Batch",
    "CacheEvent",
    "ControlEvent",
    "Event",
    "ExpertKey",
    "Output",
    "Residency",
    "Site",
    "StepReport",
    "Tally",
]


class ExpertKey(NamedTuple):
    """One expert of the model: the unit of caching, placement and offload."""

    layer: int
    expert: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Batch:
    """Token ids with what is known of them.

    Args:
        target_ids: the token to predict at each place, -100 where none is scored.
        mask: True for a real token; None when there is no padding.
        domain: index into `domains` of each token.
        domains: names of the domains.
    """

    token_ids: Int[Tensor, "B S"]
    target_ids: Int[Tensor, "B S"] | None = None
    mask: Bool[Tensor, "B S"] | None = None
    domain: Int[Tensor, "B S"] | None = None
    domains: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, eq=False)
class Site:
    """One routing decision of one forward pass, and where it was taken.

    Args:
        layer: index among the MoE layers.
        iteration: pass through the same layer.
        module: dotted name of the layer's module in the model.
        router: public name of the router.
        is_shadow: True for a router that watches without acting.
    """

    layer: int
    iteration: int
    module: str
    router: str
    routing: Routing
    is_shadow: bool = False


@dataclass(frozen=True, kw_only=True, eq=False)
class Output:
    """What a forward pass returns.

    Args:
        logits: scores of the next token; zero where the input was padding.
        sites: the routings, from the first MoE layer to the last.
        context: what the routers knew of the tokens; None where there was no model.
    """

    logits: Float[Tensor, "B S V"]
    sites: Sequence[Site]
    context: RouteContext | None = None

    @property
    def active_sites(self) -> tuple[Site, ...]:
        """The decisions that the model acted on, those of shadow routers left out."""
        return tuple(site for site in self.sites if not site.is_shadow)

    def _repr_html_(self) -> str:
        shape = " x ".join(str(n) for n in self.logits.shape)
        rows = {f"layer {s.layer}": f"{s.router}: {s.routing!r}" for s in self.sites}
        return facts("Output", {"logits [batch x position x vocabulary]": shape, **rows})


@dataclass(frozen=True, kw_only=True, eq=False)
class Tally:
    """Counts of one site over a whole optimiser step, summed over micro-batches and ranks.

    Args:
        demand: assignments asked for, before capacity.
        kept: assignments computed.
        losses: mean auxiliary losses, before their weights.
        tokens: tokens routed.
        is_here: True for the site whose router receives this tally.
    """

    layer: int
    iteration: int
    demand: Int[Tensor, "E"]
    kept: Int[Tensor, "E"]
    losses: Mapping[str, float]
    tokens: int
    is_here: bool = True


@dataclass(frozen=True, kw_only=True)
class ControlEvent:
    """Something a person did to a run.

    Args:
        op: name of the command, for instance `swap_router`.
        args: its arguments, plain values.
        time_ns: when it was accepted, nanoseconds since the epoch.
        actor: who asked.
        accepted_step: step at which it was accepted.
        applied_step: first step that it changed.
        result: what happened, in words.
    """

    op: str
    args: Mapping[str, Any]
    time_ns: int
    actor: str
    accepted_step: int
    applied_step: int
    result: str


@dataclass(frozen=True, kw_only=True)
class CacheEvent:
    """One event of an expert cache.

    Args:
        time_ns: when, nanoseconds since the epoch or of the simulated clock.
        bytes: bytes moved.
        stall_seconds: time the computation waited [s].
    """

    time_ns: int
    step: int
    token: int
    key: ExpertKey
    kind: Literal["hit", "miss", "prefetch", "prefetch_late", "evict", "host_compute"]
    bytes: int
    stall_seconds: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Residency:
    """Where every expert was at one moment.

    Args:
        step: of the run.
        tier: 0 device, 1 host, 2 disk.
    """

    step: int
    tier: Int8[np.ndarray, "L E"]


Event = ControlEvent | CacheEvent | Residency
"""What a trace keeps beside passes and reports."""


@dataclass(frozen=True, kw_only=True)
class StepReport:
    """What one optimiser step did; plain numbers, so that it can be kept.

    Args:
        step: optimiser steps done so far.
        loss: mean cross-entropy of the training tokens [nat/token].
        aux_losses: mean auxiliary losses over layers, before their weights.
        aux_weights: the weights they had.
        learning_rate: of this step.
        grad_norm: gradient norm before clipping.
        tokens: training tokens seen so far.
        tokens_per_second: over this step.
        wall_seconds: time spent in training steps so far, over all resumes [s].
        bits_per_byte: held-out loss per domain [bit/byte], on steps that evaluate.
        events: what was done to the run just before this step.
    """

    step: int
    loss: float
    aux_losses: Mapping[str, float]
    aux_weights: Mapping[str, float]
    learning_rate: float
    grad_norm: float
    tokens: int
    tokens_per_second: float
    wall_seconds: float
    bits_per_byte: Mapping[str, float] = field(default_factory=dict)
    events: tuple[ControlEvent, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The report as plain data."""
        return asdict(self)

    def _repr_html_(self) -> str:
        rows: dict[str, object] = {
            "loss [nat/token]": f"{self.loss:.4f}",
            "learning rate": f"{self.learning_rate:.2e}",
            "gradient norm": f"{self.grad_norm:.3f}",
            "tokens/s": f"{self.tokens_per_second:,.0f}",
        }
        rows |= {f"{name} loss": f"{value:.4f}" for name, value in self.aux_losses.items()}
        rows |= {f"{name} [bit/byte]": f"{value:.3f}" for name, value in self.bits_per_byte.items()}
        rows |= {f"event: {event.op}": event.result for event in self.events}
        return facts(f"step {self.step}", rows)

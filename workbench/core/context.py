"""What a router may know when it decides."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from workbench.core.seeds import stream

__all__ = ["Phase", "RouteContext", "Watcher"]

Phase = Literal["train", "eval", "prefill", "decode"]


@dataclass(frozen=True, kw_only=True, eq=False)
class RouteContext:
    """Everything beside the hidden states that a routing decision may depend on.

    Args:
        layer: index of the MoE layer among `num_layers`, counted from 0.
        iteration: pass through the same layer, for layers that run more than once.
        phase: what the model is doing; noise and capacity belong to training.
        sequence: which sequence of the batch a token belongs to.
        position: place of a token in its sequence, padding not counted.
        token_id: vocabulary index of a token.
        label: domain of a token, where the data has one.
        is_shadow: the router that is asked only watches.
        bias: added to the choice, never to the weight, over the model's experts; -inf bans.
        previous: the nearest `Routing` below made by a router of the same class.
        shared: the part that all layers of this router share.
        attention: the layer's attention, behind `attend`.
        watcher: a shadow router that decides beside the active one, for the layer only.
    """

    layer: int = 0
    num_layers: int = 1
    iteration: int = 0
    step: int = 0
    num_steps: int = 0
    phase: Phase = "eval"
    seed: int = 0
    micro_batch: int = 0
    data_rank: int = 0
    sequence: Int[Tensor, "T"] | None = None
    position: Int[Tensor, "T"] | None = None
    token_id: Int[Tensor, "T"] | None = None
    label: Int[Tensor, "T"] | None = None
    bias: Float[Tensor, "E"] | None = None
    is_shadow: bool = False
    previous: Any = None
    shared: nn.Module | None = None
    attention: Callable[..., tuple[Tensor, Tensor]] | None = None
    watcher: "Watcher | None" = None

    def at(self, **changes: Any) -> "RouteContext":
        """A copy with some fields changed."""
        return replace(self, **changes)

    def without_tokens(self) -> "RouteContext":
        """A copy for rows that are not the batch's tokens: slots, received rows."""
        return self.at(sequence=None, position=None, token_id=None, label=None, attention=None, watcher=None)

    @property
    def is_training(self) -> bool:
        """Whether noise, capacity and other training rules apply."""
        return self.phase == "train"

    def noise(
        self, shape: tuple[int, ...], draw: int = 0, *, device: torch.device | str = "cpu", normal: bool = False
    ) -> Float[Tensor, "..."]:
        """Noise of its own for this step, layer and draw: uniform in [0, 1), or standard normal.

        It never touches the global generator, so that a recomputed forward sees the same noise.
        """
        place = (self.seed, self.step, self.micro_batch, self.data_rank, self.layer, self.iteration, draw)
        generator = stream(*place, device=device)
        draws = torch.randn if normal else torch.rand
        return draws(shape, generator=generator, device=device)

    def attend(
        self,
        values: Float[Tensor, "T M"],
        query: Float[Tensor, "T H Q"] | None = None,
        key: Float[Tensor, "T H Q"] | None = None,
    ) -> tuple[Float[Tensor, "T H M"], Float[Tensor, "T W"]]:
        """Values mixed over each token's own past, and what to remember of the new tokens.

        With query and key the similarity is the router's own, without them it is the layer's
        attention. The second result goes into `Routing.memory`.

        Raises:
            ValueError: there is no attention here, as for slots or received rows.
        """
        if self.attention is None:
            raise ValueError(
                "this router reads attention, and there is none here (slots, or a layer without attention); "
                "use a router that looks at one token at a time"
            )
        return self.attention(values, query, key, place=(self.iteration, self.is_shadow))


@dataclass(frozen=True, kw_only=True, eq=False)
class Watcher:
    """A shadow router in one layer: it sees what the active router sees and touches nothing.

    Args:
        name: its public name.
        router: decides; never applied.
        shared: the part that all its layers share.
        previous: its own nearest decision below.
    """

    name: str
    router: nn.Module
    shared: nn.Module | None
    previous: Any

    def decide(self, seen: Float[Tensor, "T D"], context: RouteContext) -> Any:
        """Its decision about the same hidden states, which get no gradient from it; nobody steers it."""
        own = context.at(shared=self.shared, previous=self.previous, bias=None, watcher=None, is_shadow=True)
        return self.router(seen.detach(), own)

    def after(self, routing: Any) -> "Watcher":
        """The same, one decision later."""
        return replace(self, previous=routing)

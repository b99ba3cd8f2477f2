"""The interface of a router."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn
from workbench_kernels import ChoiceGate

from workbench.core.check import at_least
from workbench.core.context import RouteContext
from workbench.core.records import Tally
from workbench.core.routing import Routing
from workbench.core.spec import Spec

__all__ = ["Card", "Router"]


@dataclass(frozen=True)
class Card:
    """Where a router comes from.

    Args:
        title: of the paper, or what the control is for.
        arxiv: identifier; None for a control that no paper owns.
        changes: the part of the layer that it changes, in a few words.
        unverified: what could not be checked against the paper.
    """

    title: str
    arxiv: str | None = None
    year: int | None = None
    changes: str = ""
    unverified: str = ""


class Router(nn.Module, ABC):
    """Decides which experts each token goes to. Subclasses are final.

    Args:
        width: model width D.
        num_experts: the model's experts E, a router's extras not counted.
        layer: index among the MoE layers, for routers that differ by layer.

    Attributes:
        card: the paper.
        expert: the expert body it requires; None means the model's.
        extra_experts: cheap experts appended after the model's E, each kind with its own `num_experts`.
        causal: no decision depends on a later token, in prefill and decode.
        causal_in_training: the same, for the training rule.
        steerable: honours `context.bias`.
        reads_stream: wants the residual stream before the norm.
    """

    card: ClassVar[Card]
    expert: ClassVar[Spec | None] = None
    extra_experts: tuple[Spec, ...] = ()
    causal: bool
    causal_in_training: bool
    steerable: bool = False
    reads_stream: bool = False

    def __init__(self, width: int, num_experts: int, *, layer: int = 0):
        super().__init__()
        at_least("width", width, 1)
        at_least("num_experts", num_experts, 1)
        self.width = width
        self.num_experts = num_experts
        self.layer = layer

    @property
    def loss_weights(self) -> Mapping[str, float]:
        """Weight of each auxiliary loss, read every step. Hook: none by default."""
        return {}

    @abstractmethod
    def forward(self, x: Float[Tensor, "T D"], context: RouteContext) -> Routing:
        """The decision for these tokens; changes no state."""

    def top_k_gate(self) -> ChoiceGate | None:
        """The router as data, if outside of training it is the best K of a linear map and no more. Hook.

        Then a token may be decided, and its experts computed, without a call of `forward`.
        """
        return None

    def shared_part(self) -> nn.Module | None:
        """A part that all layers of this router share, given back as `context.shared`. Hook."""
        return None

    def losses(
        self,
        routing: Routing,
        load: Float[Tensor, "E"],
        token_loss: Float[Tensor, "T"] | None,
        context: RouteContext,
    ) -> dict[str, Tensor]:
        """Auxiliary losses only this router knows, by the names in `loss_weights`. Hook.

        Args:
            load: share of assignments per expert, already summed where the paper asks.
            token_loss: cross-entropy of each token [nat], detached, NaN where a token has no target; None
                outside training.
            context: what the router knew of these tokens when it decided, attention and neighbours left out.
        """
        return {}

    def update(self, tallies: Sequence[Tally]) -> None:
        """Adjust state that is not trained by gradients, once per optimiser step. Hook.

        Args:
            tallies: of every site of the model; this router's own have `is_here`.
        """

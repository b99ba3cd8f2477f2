"""The experts of a single token, brought one layer at a time while the whole model runs in one call."""

from collections.abc import Callable, Sequence
from typing import final

from jaxtyping import Float
from torch import Tensor

from workbench.core.context import RouteContext
from workbench.core.experts import Meanwhile
from workbench.offload.engine import OffloadEngine
from workbench.offload.prefetcher import Guess, Observation

__all__ = ["TokenBringer"]


@final
class TokenBringer:
    """Asks an engine for what one token has chosen in one layer; the experts are exact, one page each.

    Args:
        engine: shared by all layers; its least budget holds what a token chooses.
        layer: index among the MoE layers.
        num_experts: of a layer.
        ahead: (layer, hidden states, context) -> what the next layer would choose for them.
    """

    def __init__(
        self,
        engine: OffloadEngine,
        layer: int,
        num_experts: int,
        ahead: Callable[[int, Tensor, RouteContext], Sequence[Guess]],
    ):
        self._engine, self._layer, self._ahead = engine, layer, ahead
        self._first = layer * num_experts

    def __call__(
        self,
        experts: Sequence[int],
        x: Float[Tensor, "1 D"],
        context: RouteContext,
        meanwhile: Meanwhile,
    ) -> list[int]:
        """The slot of each expert; they are there when the call returns.

        Args:
            meanwhile: called while some are on their way, with the slots of those that are there and -1 for the others.

        Raises:
            OSError: an expert could not be read.
            ValueError: an expert is damaged.
        """
        engine, first, prefetcher = self._engine, self._first, self._engine.loop.prefetcher
        engine.begin_pass(self._layer, context.iteration, 1, is_prompt=context.phase != "decode")
        token_id = context.token_id if prefetcher is not None and prefetcher.needs_tokens else None
        pages = [first + expert for expert in experts]
        seen = Observation(
            layer=self._layer,
            pages=sorted(pages),
            counts=[1] * len(experts),
            ahead=lambda: self._ahead(self._layer, x, context),
            token_ids=None if token_id is None else tuple(token_id.tolist()),
        )

        def compute() -> None:
            slots = engine.slots_of(pages)
            if -1 in slots and max(slots) >= 0:
                meanwhile(slots)

        slot_of: dict[int, int] = {}
        for numbers, slots in engine.serve(seen, [0] * len(experts), meanwhile=compute):
            assert not slot_of, "what one token asks for fits into the least budget"
            slot_of = dict(zip(numbers, slots, strict=True))
        return [slot_of[expert] for expert in experts]

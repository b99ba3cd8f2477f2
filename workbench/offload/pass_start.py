"""Tells an engine the tokens of a pass before the first layer runs."""

from typing import Any

from torch import Tensor

from workbench.core.context import RouteContext
from workbench.model.transformer import Transformer
from workbench.offload.engine import OffloadEngine

__all__ = ["tell_passes"]


def tell_passes(model: Transformer, engine: OffloadEngine) -> None:
    """From now on the engine hears of every pass of this model, if its prefetcher reads tokens.

    The tokens are those that the layers see: sequence after sequence, without padding.
    """

    def tell(module: Transformer, args: tuple[Any, ...], options: dict[str, Any]) -> None:
        prefetcher = engine.loop.prefetcher
        if prefetcher is None or not prefetcher.needs_tokens:
            return
        token_ids: Tensor = args[0] if args else options["token_ids"]
        mask: Tensor | None = options.get("mask")
        context: RouteContext | None = options.get("context")
        ids = token_ids.flatten() if mask is None else token_ids[mask]
        engine.start_pass(tuple(ids.tolist()), is_prompt=context is None or context.phase != "decode")

    model.register_forward_pre_hook(tell, with_kwargs=True)

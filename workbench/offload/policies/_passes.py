"""Counting forward passes and tokens from the sets that layers ask for."""

from collections.abc import Sequence

from workbench.offload.policy import CacheShape

__all__ = ["PassClock", "latest_turn_first"]


class PassClock:
    """Which forward pass runs. A layer that is not deeper than the one before begins a pass.

    Args:
        shape: of the model.

    Attributes:
        passes: begun so far.
        tokens: of the passes before and of this one, from the load of the first layer: a token counts `top_k` times.
    """

    def __init__(self, shape: CacheShape):
        self.passes = 0
        self.tokens = 0
        self._top_k = shape.top_k
        self._layer = shape.num_layers

    def observe(self, layer: int, counts: Sequence[int]) -> bool:
        """Whether this layer begins a pass."""
        is_new = layer <= self._layer
        self._layer = layer
        if is_new:
            self.passes += 1
            self.tokens += -(-sum(counts) // self._top_k)
        return is_new


def latest_turn_first(num_layers: int) -> list[list[int]]:
    """For every running layer all layers, that whose next turn is latest first: itself, those before it, the last."""
    return [[(running - back) % num_layers for back in range(num_layers)] for running in range(num_layers)]

"""The next layer's own gate, asked a layer early."""

from collections.abc import Sequence

from workbench.core.check import at_least
from workbench.offload.policy import CacheShape
from workbench.offload.prefetcher import Guess, Observation, Prefetcher

__all__ = ["NextLayer"]


class NextLayer(Prefetcher):
    """Guess what the next layer's gate says about the hidden states that this layer sees.

    The stream changes little from layer to layer, so the gate is often right; it costs one gate per layer. The
    last layer guesses nothing: the next token's hidden states do not exist yet.

    Args:
        most: guesses per layer, those with most tokens first; 0 takes all. The report takes 1 or 2.

    Source: arXiv 2312.17238, section 3.2 (the published code has no such prefetch); arXiv 2408.10284 does the
        same for several layers ahead. The section is cited from notes, not from the text (unverified).
    """

    needs_ahead = True

    def __init__(self, shape: CacheShape, *, most: int = 0):
        super().__init__(shape)
        at_least("most", most, 0)
        self.most = most

    def predict(self, seen: Observation) -> Sequence[Guess]:
        """The next layer's experts, as far as its gate can tell."""
        # the sort is stable: among equals the order of the gate remains.
        guesses = sorted(seen.ahead(), key=lambda guess: -guess[1])
        return guesses[: self.most] if self.most else guesses

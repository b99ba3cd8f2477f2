"""The routing itself says what the next layer will ask for."""

from collections.abc import Sequence

from workbench.offload.prefetcher import Guess, Observation, Prefetcher

__all__ = ["PreGated"]


class PreGated(Prefetcher):
    """Fetch all that the routing announces for the next layer, as a fact and not as a guess.

    For models whose router decides before the layer runs and says so (`Routing.ahead`): every announced expert
    will be asked for, so none is left out and all are equally sure. With any other router the announcement is
    only the guess that `next_layer` takes; nothing is refused then, and a wrong guess costs bytes as always.

    Source: arXiv 2308.12066, where the gate of a block chooses for the next block; routers that decide once for
        all layers, as arXiv 2410.19123, announce in the same way.
    """

    needs_ahead = True

    def predict(self, seen: Observation) -> Sequence[Guess]:
        """What is announced for the next layer."""
        return [(page, 1.0) for page, _ in seen.ahead()]

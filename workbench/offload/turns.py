"""In which order layers ask: how far away a layer's turn is."""

__all__ = ["Turns"]


class Turns:
    """Counts sets: the layers come in turn, and a layer of a chain asks several times in its turn.

    How often a layer asks in a turn is what it did in its last one; before the first has ended, once. In a model
    of one layer turns cannot be told apart, and each set is one.

    Args:
        num_layers: of the model.
    """

    def __init__(self, num_layers: int):
        self._times = [1] * num_layers
        self._layer = -1
        self._done = 0

    def observe(self, layer: int) -> None:
        """A layer asks."""
        if layer != self._layer or len(self._times) == 1:
            if self._layer >= 0:
                self._times[self._layer] = self._done
            self._layer, self._done = layer, 0
        self._done += 1

    def sets_until(self, layer: int) -> int:
        """Sets from the running one to the last in which a layer may ask: in this turn if it goes on, or its next."""
        times, here = self._times, self._layer
        rest = max(times[here] - self._done, 0)
        if layer == here and rest:
            return rest
        number = len(times)
        turns = (layer - here - 1) % number + 1
        return rest + sum(times[(here + turn) % number] for turn in range(1, turns + 1))

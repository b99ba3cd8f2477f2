"""Slots go to layers by predicted demand; what no layer is predicted to need leaves first."""

from collections import OrderedDict
from collections.abc import Sequence, Set

from workbench.offload.policies._order import first_free
from workbench.offload.policies._passes import latest_turn_first
from workbench.offload.policy import NOBODY, CachePolicy, CacheShape

__all__ = ["PredictedLocality"]


class PredictedLocality(CachePolicy):
    """Evict an expert that is not predicted for the coming sets, the oldest use first (PLEC).

    Prefetched experts that were predicted in vain leave before all others. If all are predicted, a layer that
    holds more than its slots gives, that whose turn comes latest, and of its experts the one with the fewest
    tokens. Slots are shared by the number of predicted experts, with the largest remainders rounded up.

    The prediction is causal: a layer is thought to ask for what it asked for in the pass before. A better one
    is told with `predict`, as by a predictor that reads the whole path from the tokens; it holds until the
    layer has run.

    Source: arXiv 2410.17954, predictive locality-aware expert caching; which predicted expert leaves if all
    are predicted is ours.
    """

    def __init__(self, shape: CacheShape):
        super().__init__(shape)
        self._wanted: list[dict[int, int]] = [{} for _ in range(shape.num_layers)]
        self._predicted: list[OrderedDict[int, None]] = [OrderedDict() for _ in range(shape.num_layers)]
        self._others: OrderedDict[int, None] = OrderedDict()
        self._unused: set[int] = set()
        self._latest_first = latest_turn_first(shape.num_layers)
        self._running = 0
        self._slots: list[int] | None = None

    def predict(self, layer: int, pages: Sequence[int], counts: Sequence[int]) -> None:
        """What a layer will ask for when it runs next, and for how many tokens."""
        before, self._wanted[layer] = self._wanted[layer], dict(zip(pages, counts, strict=True))
        if len(before) != len(pages):
            self._slots = None
        wanted, predicted = self._wanted[layer], self._predicted[layer]
        for page in [page for page in predicted if page not in wanted]:
            del predicted[page]
            self._others[page] = None
            if page in self._unused:
                self._others.move_to_end(page, last=False)
        for page in wanted:
            if page in self._others:
                del self._others[page]
                predicted[page] = None

    def slots(self) -> list[int]:
        """The share of every layer in the cache."""
        if self._slots is None:
            self._slots = _largest_remainder(self.shape.capacity, [len(wanted) for wanted in self._wanted])
        return self._slots

    def observe(self, layer: int, pages: Sequence[int], counts: Sequence[int]) -> None:
        """What a layer asks for is what it will ask for in the next pass."""
        self._running = layer
        self.predict(layer, pages, counts)

    def touch(self, page: int) -> None:
        """The page is the newest of those that are filed with it."""
        self._unused.discard(page)
        self._pages_with(page).move_to_end(page)

    def enter(self, page: int) -> None:
        """The page is there, and not used yet."""
        self._unused.add(page)
        is_wanted = page in self._wanted[page // self.shape.num_experts]
        (self._predicted[page // self.shape.num_experts] if is_wanted else self._others)[page] = None

    def leave(self, page: int) -> None:
        """The page is forgotten."""
        self._unused.discard(page)
        del self._pages_with(page)[page]

    def victim(self, pinned: Set[int]) -> int:
        """The oldest page that is not predicted, else one of a layer that holds too many."""
        for page in first_free(self._others, 1, pinned):
            return page
        slots, latest = self.slots(), self._latest_first[self._running]
        rich = [layer for layer in latest if len(self._predicted[layer]) > slots[layer]]
        for layer in (*rich, *latest):
            # min takes the first of equals, which is the oldest.
            free = [page for page in self._predicted[layer] if page not in pinned]
            if free:
                return min(free, key=self._wanted[layer].__getitem__)
        raise AssertionError("everything is pinned")

    def touch_all(self, pages: Sequence[int]) -> None:
        """The pages are the newest of those that are filed with them."""
        self._unused.difference_update(pages)
        for page in pages:
            self._pages_with(page).move_to_end(page)

    def place(self, pages: Sequence[int], free: int, pinned: frozenset[int], left: list[int]) -> None:
        """The oldest pages that are not predicted leave; then others, one after the other."""
        others, predicted, wanted = self._others, self._predicted, self._wanted
        gone, experts = first_free(others, len(pages) - free, pinned), self.shape.num_experts
        for page in gone:
            del others[page]
        self._unused.difference_update(gone)
        first = free + len(gone)
        for page in pages[:first]:
            layer = page // experts
            (predicted[layer] if page in wanted[layer] else others)[page] = None
        left += [NOBODY] * (min(first, len(pages)) - len(gone)) + gone
        super().place(pages[first:], 0, pinned, left)

    def _pages_with(self, page: int) -> OrderedDict[int, None]:
        predicted = self._predicted[page // self.shape.num_experts]
        return predicted if page in predicted else self._others


def _largest_remainder(total: int, weights: Sequence[int]) -> list[int]:
    whole = sum(weights)
    if not whole:
        return [0] * len(weights)
    shares = [divmod(total * weight, whole) for weight in weights]
    slots = [share for share, _ in shares]
    by_remainder = sorted(range(len(weights)), key=lambda index: (-shares[index][1], index))
    for index in by_remainder[: total - sum(slots)]:
        slots[index] += 1
    return slots

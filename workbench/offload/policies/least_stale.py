"""Least stale: what this forward pass has not touched leaves first."""

from collections import OrderedDict
from collections.abc import Sequence, Set

from workbench.offload.policies._passes import PassClock, latest_turn_first
from workbench.offload.policy import CachePolicy, CacheShape

__all__ = ["LeastStale"]


class LeastStale(CachePolicy):
    """Evict an expert that the running forward pass has not touched, of the layer whose turn comes latest.

    Layers run in order, so an expert left from the pass before may be needed soon if its layer is still to
    come, and not before the next pass if its layer has run. If all were touched, the layer that ran last
    gives. Within a layer the oldest use leaves. A prefetched expert counts as touched.

    Only the first rule is known from the source; the order by layers is ours, unverified. By last use alone
    the first rule is plain LRU.

    Source: arXiv 2602.03921 (abstract and a summary; the rule's details are unverified).
    """

    def __init__(self, shape: CacheShape):
        super().__init__(shape)
        self._clock = PassClock(shape)
        self._latest_first = latest_turn_first(shape.num_layers)
        self._running = 0
        # of every layer: page -> pass that touched it last, oldest first.
        self._touched: list[OrderedDict[int, int]] = [OrderedDict() for _ in range(shape.num_layers)]

    def observe(self, layer: int, pages: Sequence[int], counts: Sequence[int]) -> None:
        """Notes which layer and which pass runs."""
        self._clock.observe(layer, counts)
        self._running = layer

    def touch(self, page: int) -> None:
        """The page is the newest of its layer, touched in this pass."""
        layer = self._touched[page // self.shape.num_experts]
        layer[page] = self._clock.passes
        layer.move_to_end(page)

    def enter(self, page: int) -> None:
        """The page is the newest of its layer, touched in this pass."""
        self._touched[page // self.shape.num_experts][page] = self._clock.passes

    def leave(self, page: int) -> None:
        """The page is forgotten."""
        del self._touched[page // self.shape.num_experts][page]

    def victim(self, pinned: Set[int]) -> int:
        """The oldest stale page of the layer with the latest turn; a fresh one if none is stale."""
        return self._first(1, pinned)[0]

    def touch_all(self, pages: Sequence[int]) -> None:
        """The pages are the newest of their layer, touched in this pass."""
        touched, experts, now = self._touched, self.shape.num_experts, self._clock.passes
        for page in pages:
            layer = touched[page // experts]
            layer[page] = now
            layer.move_to_end(page)

    def place(self, pages: Sequence[int], free: int, pinned: frozenset[int], left: list[int]) -> None:
        """Stale pages leave; the placed ones are the newest of their layer."""
        touched, experts, now = self._touched, self.shape.num_experts, self._clock.passes
        gone = self._first(len(pages) - free, pinned)
        for page in gone:
            del touched[page // experts][page]
        for page in pages:
            touched[page // experts][page] = now
        left += gone

    def _first(self, number: int, pinned: Set[int]) -> list[int]:
        """Who leaves, one after the other: stale pages, then fresh ones, by layers and there by use."""
        if number <= 0:
            return []
        found, fresh, now = list[int](), list[int](), self._clock.passes
        for layer in self._latest_first[self._running]:
            for page, touched in self._touched[layer].items():
                if page in pinned:
                    continue
                if touched == now:
                    fresh.append(layer)
                    break
                found.append(page)
                if len(found) == number:
                    return found
        for layer in fresh:
            found += [page for page, touched in self._touched[layer].items() if touched == now and page not in pinned]
        return found[:number]

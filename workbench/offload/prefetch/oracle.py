"""What comes next, known beforehand: the bound of every prefetcher."""

from collections.abc import Sequence

from workbench.core.check import within
from workbench.offload.policy import CacheShape
from workbench.offload.prefetcher import Guess, Observation, Prefetcher
from workbench.offload.requests import Requests

__all__ = ["Oracle"]


class Oracle(Prefetcher):
    """Guess the next sets exactly as they come, the nearest first. Replay only.

    It is never wrong about what will be asked for; what leaves the cache for it is the policy's choice, so it
    may still cost bytes. With no computation to hide behind it saves no time, and at most half with some.

    Args:
        distance: how many sets ahead; at most one round of the layers.

    Source: the bound of perfect prediction, as arXiv 2606.21868 uses it (unverified beyond its abstract).
    """

    reads_future = True

    def __init__(self, shape: CacheShape, *, distance: int = 1):
        super().__init__(shape)
        within("distance", distance, 1, shape.num_layers, hint="a set further away than one round is not told apart")
        self.distance = distance
        self._requests: Requests | None = None
        self._sets = 0

    def foresee(self, requests: Requests) -> None:
        """Everything that will be asked for."""
        self._requests, self._sets = requests, 0

    def learn(self, seen: Observation) -> None:
        """Counts the sets."""
        self._sets += 1

    def predict(self, seen: Observation) -> Sequence[Guess]:
        """The pages of the next sets."""
        requests = self._requests
        if requests is None:
            raise LookupError("the oracle has not foreseen anything; use it in replay, which calls foresee first")
        last = min(self._sets + self.distance, requests.num_sets)
        coming = requests.page[requests.start[min(self._sets, last)] : requests.start[last]].tolist()
        # a dict keeps the order: a page counts where it comes first.
        return [(page, 1.0) for page in dict.fromkeys(coming)]

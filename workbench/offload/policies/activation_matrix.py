"""The experts that requests like this one used stay, early layers first."""

from collections.abc import Sequence, Set
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from workbench.offload.activation import MatrixCollection
from workbench.offload.policies._order import first_free
from workbench.offload.policies._passes import PassClock
from workbench.offload.policy import CachePolicy, CacheShape

__all__ = ["ActivationMatrix"]

# above every key of a page that is resident.
_ABSENT = 1 << 62


class ActivationMatrix(CachePolicy):
    """Evict the expert with the smallest (share + eps) (1 - layer / layers); of equals the oldest use leaves.

    The share is what part of the layer's tokens the expert got in the past request whose activations are most
    like those of the running pass. Layers count from the first, not from the running one. A request that ends,
    which is when the next begins, enters the collection. Until one has, the running request's own activations
    are taken, as in the first version of the source (unverified). Prompt and decoding are not kept apart.

    Args:
        eamc_capacity: past requests that are remembered.
        distance: how alike two requests are: `row` by row, or `flat`.
        eps: of the share [1]; the source gives no value, its code has this one.

    Source: arXiv 2401.14361v3, Algorithm 1.
    """

    is_stack = True

    def __init__(
        self,
        shape: CacheShape,
        *,
        eamc_capacity: int = 120,
        distance: Literal["row", "flat"] = "row",
        eps: float = 1e-6,
    ):
        super().__init__(shape)
        layers, experts = shape.num_layers, shape.num_experts
        self.collection = MatrixCollection(eamc_capacity, layers, experts, distance=distance)
        self.eps = eps
        self._factor = 1 - np.arange(layers)[:, None] / layers
        self._request = np.zeros((layers, experts))
        # of the running request, as long as there is no other.
        self._own_score = (self._request + eps) * self._factor
        self._clock = PassClock(shape)
        self._set = 0
        # last use and page in one number: of equal scores the smallest leaves.
        self._page_bits = shape.num_pages.bit_length()
        self._use = np.full(shape.num_pages, _ABSENT)
        # of matrices: the place of every page by its score, above the bits of its use.
        self._ranks: dict[int, NDArray[np.int64]] = {}
        self._keys = np.empty_like(self._use)

    def observe(self, layer: int, pages: Sequence[int], counts: Sequence[int]) -> None:
        """Adds the tokens of a layer to the running request, and compares."""
        self._set += 1
        if self._clock.observe(layer, counts):
            self.collection.begin_pass()
        # one by one: there are few, and to make an array of them takes longer.
        row, first, request = np.zeros(self.shape.num_experts), layer * self.shape.num_experts, self._request[layer]
        for page, count in zip(pages, counts, strict=True):
            row[page - first] = count
        request += row
        if len(self.collection):
            self.collection.observe(layer, row)
        else:
            self._own_score[layer] = (request / max(request.sum(), 1.0) + self.eps) * self._factor[layer]

    def begin_sequence(self) -> None:
        """The request that has ended is remembered."""
        if self._request.any():
            self._ranks.pop(self.collection.insert(self._request), None)
            self._request[:] = 0.0
        self._clock = PassClock(self.shape)

    def touch(self, page: int) -> None:
        """The use is the newest."""
        self.touch_all((page,))

    def enter(self, page: int) -> None:
        """The page may leave."""
        self.touch_all((page,))

    def leave(self, page: int) -> None:
        """The page may not leave again."""
        self._use[page] = _ABSENT

    def victim(self, pinned: Set[int]) -> int:
        """The page with the smallest score."""
        return first_free(self._ranked(1 + len(pinned)), 1, pinned)[0]

    def touch_all(self, pages: Sequence[int]) -> None:
        """The uses are the newest."""
        use, now = self._use, self._set << self._page_bits
        for page in pages:
            use[page] = now + page

    def place(self, pages: Sequence[int], free: int, pinned: frozenset[int], left: list[int]) -> None:
        """The pages with the smallest scores leave."""
        number, use, gone = len(pages) - free, self._use, list[int]()
        if number > 0:
            # who is placed is pinned, and is not there yet.
            gone = first_free(self._ranked(number + len(pinned) - len(pages)), number, pinned)
        for page in gone:
            use[page] = _ABSENT
        self.touch_all(pages)
        left += gone

    def _ranked(self, number: int) -> list[int]:
        """So many resident pages or more, the smallest scores first, of equals the oldest use."""
        nearest = self.collection.nearest()
        if nearest is None:
            return self._ranked_by_itself(number)
        keys = np.add(self._rank(nearest), self._use, self._keys)
        if number < len(keys):
            keys.partition(number)
            keys = keys[:number]
        mask = (1 << self._page_bits) - 1
        return [key & mask for key in sorted(keys.tolist()) if key < _ABSENT]

    def _ranked_by_itself(self, number: int) -> list[int]:
        pages = (self._use < _ABSENT).nonzero()[0]
        score = self._own_score.ravel()[pages]
        if number < len(pages):
            small = score.copy()
            small.partition(number)
            is_small = score <= small[number]
            pages, score = pages[is_small], score[is_small]
        found: list[int] = pages[np.lexsort((self._use[pages], score))].tolist()
        return found

    def _score(self, slot: int) -> NDArray[np.float64]:
        score: NDArray[np.float64] = ((self.collection.shares(slot) + self.eps) * self._factor).ravel()
        return score

    def _rank(self, slot: int) -> NDArray[np.int64]:
        if slot not in self._ranks:
            _, rank = np.unique(self._score(slot), return_inverse=True)
            # uses take a number of bits that no replay fills: each set is one.
            self._ranks[slot] = rank.astype(np.int64) << (62 - self._page_bits)
        return self._ranks[slot]

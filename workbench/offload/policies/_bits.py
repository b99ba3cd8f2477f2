"""One bit with every request, known or learned."""

from collections.abc import Callable, Sequence
from math import log2
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from workbench.offload.policies._future import Foreseen
from workbench.offload.policies._labels import flipped
from workbench.offload.policies._passes import PassClock
from workbench.offload.policy import CacheShape
from workbench.offload.requests import Requests

__all__ = ["FEATURES", "BitSource", "UseFeatures", "fit_bits"]

FEATURES = ("one", "gap", "first", "uses", "recent", "load", "depth")
_RECENT_PASSES = 16.0


class UseFeatures:
    """What is known of a request when it comes: nothing of later requests.

    In the order of `FEATURES`: 1; log2(1 + passes since the page was asked for before), 0 at its first use;
    1 at its first use, else 0; log2 of its uses, this one included; uses in the recent past, fading to a half
    in 16 passes, over the largest that such a sum can be; its share of the tokens of the set; layer / layers.

    Args:
        shape: of the model.
    """

    def __init__(self, shape: CacheShape):
        self._num_layers = shape.num_layers
        self._clock = PassClock(shape)
        self._last = [0] * shape.num_pages
        self._uses = [0] * shape.num_pages
        self._recent = [0.0] * shape.num_pages

    def observe(self, layer: int, pages: Sequence[int], counts: Sequence[int]) -> list[tuple[float, ...]]:
        """The features of every page of a set."""
        self._clock.observe(layer, counts)
        now, rows, total = self._clock.passes, list[tuple[float, ...]](), max(sum(counts), 1)
        largest = 1 / (1 - 2 ** (-1 / _RECENT_PASSES))
        for page, count in zip(pages, counts, strict=True):
            gap = now - self._last[page]
            is_first = self._uses[page] == 0
            self._uses[page] += 1
            self._recent[page] = recent = 1 + self._recent[page] * 2 ** (-gap / _RECENT_PASSES)
            self._last[page] = now
            since = 0.0 if is_first else log2(1 + gap)
            share, depth = count / total, layer / self._num_layers
            rows.append((1.0, since, float(is_first), log2(self._uses[page]), recent / largest, share, depth))
        return rows


class BitSource:
    """Where a policy has its bits from.

    Args:
        shape: of the model and of the cache.
        labels: the right bits of requests at a capacity.
        bits: the right ones, or those of a logistic model.
        weights: of the model, one for each of `FEATURES`; as of `fit_bits`.
        flip0: probability that a right 1 is told as 0.
        flip1: probability that a right 0 is told as 1.
        seed: of those mistakes.

    Attributes:
        eta0: bits that say 0 and should say 1, of the whole replay; 0 where bits are learned.
        eta1: bits that say 1 and should say 0, likewise.
    """

    def __init__(
        self,
        shape: CacheShape,
        labels: Callable[[Requests, int], NDArray[np.int8]],
        *,
        bits: Literal["perfect", "learned"],
        weights: Sequence[float],
        flip0: float,
        flip1: float,
        seed: int,
    ):
        if bits == "learned" and len(weights) != len(FEATURES):
            raise ValueError(
                f"learned bits need {len(FEATURES)} weights ({', '.join(FEATURES)}), got {len(weights)}; fit them first"
            )
        if bits not in ("perfect", "learned"):
            raise ValueError(f"bits must be 'perfect' or 'learned', got {bits!r}")
        self.is_learned = bits == "learned"
        self.eta0 = self.eta1 = 0
        self._shape, self._labels, self._weights = shape, labels, tuple(weights)
        self._flip0, self._flip1, self._seed = flip0, flip1, seed
        self._features = UseFeatures(shape)
        self._foreseen: Foreseen | None = None

    def foresee(self, requests: Requests) -> None:
        """Looks the right bits up, and spoils some."""
        if self.is_learned:
            return
        right = self._labels(requests, self._shape.capacity)
        told = flipped(right, flip0=self._flip0, flip1=self._flip1, seed=self._seed)
        self.eta0, self.eta1 = int((told < right).sum()), int((told > right).sum())
        self._foreseen = Foreseen(requests, told)

    def observe(self, layer: int, pages: Sequence[int], counts: Sequence[int]) -> list[int]:
        """The bits that come with a set.

        Raises:
            LookupError: perfect bits, and nothing was foreseen.
        """
        if self.is_learned:
            rows, weights = self._features.observe(layer, pages, counts), self._weights
            return [int(sum(w * x for w, x in zip(weights, row, strict=True)) > 0) for row in rows]
        if self._foreseen is None:
            raise LookupError("perfect bits read the future: call foresee with the requests before the first of them")
        return self._foreseen.take(pages)


def fit_bits(
    requests: Requests,
    labels: NDArray[np.int8],
    *,
    wrong_zero_cost: float = 1.0,
    ridge: float = 1e-3,
    iterations: int = 25,
) -> list[float]:
    """Weights of the logistic model that tells the bits of recorded requests best.

    Binary cross-entropy, by Newton's method from zero; the minimum is unique.

    Args:
        requests: recorded; their order is that of time.
        labels: the right bits, at the capacity and batch size for which the policy will run.
        wrong_zero_cost: weight of requests whose bit is 1; the bound of the deterministic policy asks for
            capacity - 1, an even chance for 1.
        ridge: of the mean loss; keeps weights finite where the bits can be told without error.
        iterations: of Newton's method.

    Returns:
        One weight for each of `FEATURES`.
    """
    shape = CacheShape(
        num_layers=requests.num_layers, num_experts=requests.num_experts, capacity=1, top_k=requests.top_k
    )
    seen, bounds, rows = UseFeatures(shape), requests.start.tolist(), list[tuple[float, ...]]()
    for number, (layer, pages) in enumerate(zip(requests.layer.tolist(), requests.sets(), strict=True)):
        rows += seen.observe(layer, pages, requests.count[bounds[number] : bounds[number + 1]].tolist())
    x, y = np.array(rows), labels.astype(np.float64)
    importance = np.where(y == 1, wrong_zero_cost, 1.0) / len(y)
    weights = np.zeros(len(FEATURES))
    for _ in range(iterations):
        chance = 1 / (1 + np.exp(-np.clip(x @ weights, -40, 40)))
        slope = x.T @ (importance * (chance - y)) + ridge * weights
        curvature = (x * (importance * chance * (1 - chance))[:, None]).T @ x + ridge * np.eye(len(weights))
        weights -= np.linalg.solve(curvature, slope)
    fitted: list[float] = weights.tolist()
    return fitted

"""Which experts followed these ones before."""

from collections import deque
from collections.abc import Iterator, Sequence
from itertools import product
from math import prod

import numpy as np
from numpy.typing import NDArray

from workbench.core.check import at_least, within
from workbench.offload.policy import CacheShape
from workbench.offload.prefetcher import Guess, Observation, Prefetcher

__all__ = ["Markov"]


class Markov(Prefetcher):
    """Guess the coming layer from counts of which of its experts followed which of the last layers' experts.

    The counts are learned as the model runs. With `n(c, j)` the tokens of expert j after context c, a context
    says `(n(c, j) + smoothing) / (sum of n(c, .) + smoothing * experts)`, which is Laplace's rule; the guess is
    the mean over the contexts at hand, each by its tokens. What never followed any of them is not guessed.
    After the last layer comes the first layer of the next token. In a pass of many tokens it is not known which
    token chose what, so every expert counts as followed by all, in proportion to their tokens.

    Args:
        layers: of which a context is made: 1, or 2 as in EdgeMoE, whose table is made offline.
        most: guesses per layer; 0 takes as many as the running layer asks for. EdgeMoE takes 1 to 3.
        smoothing: tokens added to every count [1].
        keep: what part of a context's counts remains when it is seen again [1]; below 1 old texts fade.

    Source: arXiv 2401.08383 (affinity of neighbouring layers) and arXiv 2308.14352 (two layers); neither gives a
        smoothing, and learning online is ours. Cited from notes, not from the texts (unverified).
    """

    def __init__(self, shape: CacheShape, *, layers: int = 1, most: int = 0, smoothing: float = 1.0, keep: float = 1.0):
        super().__init__(shape)
        within("layers", layers, 1, 2, hint="a longer past is never seen twice")
        at_least("most", most, 0)
        at_least("smoothing", smoothing, 0)
        within("keep", keep, 0, 1)
        self.layers, self.most, self.smoothing, self.keep = layers, most, smoothing, keep
        # of each layer its number, pages and tokens: an observation would keep hidden states alive.
        self._past: deque[tuple[int, Sequence[int], Sequence[int]]] = deque(maxlen=layers)
        self._followed: dict[tuple[int, ...], NDArray[np.float64]] = {}

    def begin_sequence(self) -> None:
        """Nothing came before; the counts remain."""
        self._past.clear()

    def learn(self, seen: Observation) -> None:
        """Adds what followed the last layers."""
        if self._past and self._past[-1][0] != (seen.layer - 1) % self.shape.num_layers:
            # a model that skips or repeats layers: this is no neighbour.
            self._past.clear()
        if len(self._past) == self.layers and seen.pages:
            tokens = self._row(seen)
            for context, weight in self._contexts():
                counts = self._followed.setdefault(context, np.zeros(len(tokens)))
                counts *= self.keep
                counts += weight * tokens
        self._past.append((seen.layer, seen.pages, seen.counts))

    def predict(self, seen: Observation) -> Sequence[Guess]:
        """The experts that followed most."""
        if len(self._past) < self.layers:
            return []
        weights, rows, total = [], [], 0.0
        for context, weight in self._contexts():
            total += weight
            if (row := self._followed.get(context)) is not None:
                rows.append(row)
                weights.append(weight)
        if not rows:
            return []
        counts, experts = np.stack(rows), self.shape.num_experts
        smooth = (counts + self.smoothing) / (counts.sum(1, keepdims=True) + self.smoothing * experts)
        # a context that was never seen says the same of every expert.
        share = (np.array(weights) @ smooth + (total - sum(weights)) / experts) / total
        base = (seen.layer + 1) % self.shape.num_layers * self.shape.num_experts
        # the sort is stable: among equals the smaller page comes first.
        order = np.argsort(-share, kind="stable")
        order = order[counts.max(0)[order] > 0][: self.most or len(seen.pages)]
        return list(zip((base + order).tolist(), share[order].tolist(), strict=True))

    def _row(self, seen: Observation) -> NDArray[np.float64]:
        row = np.zeros(self.shape.num_experts)
        row[[page - seen.layer * self.shape.num_experts for page in seen.pages]] = seen.counts
        return row

    def _contexts(self) -> Iterator[tuple[tuple[int, ...], float]]:
        """Every choice of one expert of each remembered layer, and the product of their tokens."""
        for choice in product(*(zip(pages, counts, strict=True) for _, pages, counts in self._past)):
            yield tuple(page for page, _ in choice), float(prod([count for _, count in choice]))

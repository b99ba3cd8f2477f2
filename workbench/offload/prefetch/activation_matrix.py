"""The experts that a past request like this one used in the layers to come."""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from workbench.core.check import at_least
from workbench.offload.activation import MatrixCollection
from workbench.offload.policy import CacheShape
from workbench.offload.prefetcher import Guess, Observation, Prefetcher

__all__ = ["ActivationMatrix"]


class ActivationMatrix(Prefetcher):
    """Guess `share * (1 - (layer - running layer) / layers)` for every expert of the layers to come.

    The share is what part of the layer's tokens the expert got in the past request whose activations are most
    like those of the running pass so far. A request that ends, which is when the next begins, enters the
    collection, in place of the one that is most like it if there is no room. Until one has, the running
    request's own activations are taken, as in the first version of the source (unverified). Prompt and decoding
    are not kept apart, and of equally near requests one is taken instead of their sum. The published code
    compares other rows and never fills its collection; this follows the text.

    Args:
        eamc_capacity: past requests that are remembered.
        distance: how alike two requests are: `row` by row, or `flat`, as the third version of the source says.
        most: guesses per layer; 0 takes all.

    Source: arXiv 2401.14361v3, sections 4 and 5.
    """

    def __init__(
        self,
        shape: CacheShape,
        *,
        eamc_capacity: int = 120,
        distance: Literal["row", "flat"] = "row",
        most: int = 0,
    ):
        super().__init__(shape)
        at_least("most", most, 0)
        layers, experts = shape.num_layers, shape.num_experts
        self.collection = MatrixCollection(eamc_capacity, layers, experts, distance=distance)
        self.most = most
        self._request = np.zeros((layers, experts))
        self._layer = layers

    def begin_sequence(self) -> None:
        """The request that has ended is remembered."""
        if self._request.any():
            self.collection.insert(self._request)
            self._request[:] = 0.0
        self._layer = self.shape.num_layers

    def learn(self, seen: Observation) -> None:
        """Adds the tokens of a layer to the running request, and compares."""
        if seen.layer <= self._layer:
            self.collection.begin_pass()
        self._layer = seen.layer
        row = np.zeros(self.shape.num_experts)
        row[[page - seen.layer * self.shape.num_experts for page in seen.pages]] = seen.counts
        self._request[seen.layer] += row
        self.collection.observe(seen.layer, row)

    def predict(self, seen: Observation) -> Sequence[Guess]:
        """The experts of the layers to come with a share above 0."""
        first, layers = seen.layer + 1, self.shape.num_layers
        slot = self.collection.nearest()
        if slot is None:
            coming = self._request[first:]
            share = coming / np.maximum(coming.sum(1, keepdims=True), 1.0)
        else:
            share = self.collection.shares(slot)[first:]
        nearness = 1 - np.arange(1, layers - seen.layer) / layers
        priority = (share * nearness[:, None]).ravel()
        pages = np.flatnonzero(priority)
        # the sort is stable: among equals the smaller page comes first.
        order = pages[np.argsort(-priority[pages], kind="stable")]
        order = order[: self.most] if self.most else order
        return list(zip((order + first * self.shape.num_experts).tolist(), priority[order].tolist(), strict=True))

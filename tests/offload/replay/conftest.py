"""Requests with a memory: what a cache can make something of."""

from collections.abc import Callable

import numpy as np
import pytest

from workbench.offload.requests import Requests


@pytest.fixture(scope="session")
def local() -> Callable[..., Requests]:
    """Requests for whom each layer keeps its pair of experts for a while."""

    def make(tokens: int, *, stays: float, layers: int = 2, experts: int = 8, seed: int = 0) -> Requests:
        generator = np.random.default_rng(seed)
        pairs, sets = [None] * layers, []
        for _ in range(tokens):
            for layer in range(layers):
                if pairs[layer] is None or generator.random() > stays:
                    pairs[layer] = sorted(generator.choice(experts, 2, False) + layer * experts)
                sets.append([int(page) for page in pairs[layer]])
        return Requests.of_sets(sets, num_layers=layers, num_experts=experts)

    return make

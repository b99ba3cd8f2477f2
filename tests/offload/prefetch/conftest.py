"""A prefetcher driven by hand."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from workbench.core.spec import Spec
from workbench.offload.policy import CacheShape
from workbench.offload.prefetch import PREFETCHERS
from workbench.offload.prefetcher import Guess, Observation, Prefetcher


class Driven:
    """A prefetcher of a small model: `see` is one layer's turn, and gives its guesses."""

    def __init__(self, name: str, layers: int, experts: int, top_k: int, args: dict[str, Any]):
        self.experts = experts
        shape = CacheShape(num_layers=layers, num_experts=experts, capacity=layers * experts, top_k=top_k)
        self.prefetcher: Prefetcher = Spec(name, args).build(PREFETCHERS, shape)

    def see(
        self,
        layer: int,
        experts: Sequence[int],
        counts: Sequence[int] | None = None,
        *,
        ahead: Sequence[Guess] = (),
        token_ids: tuple[int, ...] | None = None,
    ) -> list[Guess]:
        """Experts of a layer, with the tokens of each (1 by default)."""
        pages = [layer * self.experts + expert for expert in experts]
        seen = Observation(layer, pages, counts or [1] * len(pages), lambda: ahead, token_ids)
        self.prefetcher.learn(seen)
        return list(self.prefetcher.predict(seen))

    def begin(self) -> None:
        """A new text."""
        self.prefetcher.begin_sequence()


@pytest.fixture
def drive() -> Callable[..., Driven]:
    """Makes a driven prefetcher: its name, the size of the model (`deep` layers), its arguments."""

    def make(name: str, *, deep: int = 2, experts: int = 4, top_k: int = 1, **args: Any) -> Driven:
        return Driven(name, deep, experts, top_k, args)

    return make

"""What a prefetcher is: which experts will be asked for soon."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar, NamedTuple

from workbench.offload.policy import CacheShape
from workbench.offload.requests import Requests

__all__ = ["Guess", "Observation", "Prefetcher"]

Guess = tuple[int, float]
"""A page and how sure the guess is [1]."""


class Observation(NamedTuple):
    """What is known when a layer has decided.

    Args:
        layer: that asks now.
        pages: what it asks for, ascending.
        counts: tokens of each.
        ahead: pages that the next layer's router would choose for the same hidden states, with the tokens of
            each; called only if a prefetcher needs it, because it costs a gate.
        token_ids: of the tokens of this pass, where the caller knows them.
    """

    layer: int
    pages: Sequence[int]
    counts: Sequence[int]
    ahead: Callable[[], Sequence[Guess]]
    token_ids: tuple[int, ...] | None = None


class Prefetcher(ABC):
    """Guesses experts before they are asked for. A wrong guess costs bytes and never changes an output.

    Args:
        shape: of the model and the cache.

    Attributes:
        reads_future: an oracle: replay only, because it must `foresee`.
        needs_tokens: reads `Observation.token_ids`: a trace can be replayed only if it holds them.
        needs_ahead: calls `Observation.ahead`: a trace can be replayed only if it holds the guess.
    """

    reads_future: ClassVar[bool] = False
    needs_ahead: ClassVar[bool] = False
    needs_tokens: ClassVar[bool] = False

    def __init__(self, shape: CacheShape):
        self.shape = shape

    @abstractmethod
    def predict(self, seen: Observation) -> Sequence[Guess]:
        """Experts worth fetching now, the surest first. Those that are resident are skipped by the caller."""

    def learn(self, seen: Observation) -> None:  # noqa: B027
        """A layer has decided; called for every layer, before `predict`."""

    def begin_pass(self, token_ids: Sequence[int]) -> Sequence[Guess]:
        """Experts worth fetching before the first layer of a pass asks, the surest first; for who reads tokens."""
        return ()

    def foresee(self, requests: Requests) -> None:  # noqa: B027
        """Everything that will be asked for, before the first request."""

    def begin_sequence(self) -> None:  # noqa: B027
        """A new text begins."""

"""What brings experts into slots: the interface."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import ClassVar, NamedTuple

__all__ = ["Link", "Traffic"]


class Traffic(NamedTuple):
    """What went one way between two tiers.

    Args:
        num_bytes: moved [B].
        seconds: that the movers were busy with it; of several at once, the sum [s].
    """

    num_bytes: int
    seconds: float


class Link(ABC):
    """The way from the slow tier into slots; what is demanded goes before what is guessed.

    Attributes:
        hears_leaving: it must be told who leaves a slot.
    """

    hears_leaving: ClassVar[bool] = False

    @abstractmethod
    def now(self) -> float:
        """The time on this link's clock [s]."""

    @abstractmethod
    def fetch(self, pages: Sequence[int], slots: Sequence[int], *, is_demand: bool) -> None:
        """Begin to bring experts into slots, in this order."""

    def leave(self, page: int, slot: int) -> int:
        """A whole expert loses its slot to what is fetched next; bytes that are written back for it [B]."""
        return 0

    def observe(self, layer: int, pages: Sequence[int], counts: Sequence[int]) -> None:  # noqa: B027
        """A layer asks for a set of pages, in ascending order; only who hears of leaving is told."""

    def begin_sequence(self) -> None:  # noqa: B027
        """A new text begins."""

    @abstractmethod
    def is_here(self, page: int) -> bool:
        """Whether nothing of this expert is on its way any more."""

    @abstractmethod
    def wait(self, pages: Iterable[int]) -> dict[int, float]:
        """Wait until these are here; how long the computation stood still for each [s].

        Raises:
            OSError: one could not be read.
            ValueError: one is damaged.
        """

    @abstractmethod
    def call_off(self, page: int) -> bool:
        """Stop a copy; False if it is here already."""

    @abstractmethod
    def bytes_of(self, page: int) -> int:
        """Bytes that the newest fetch of an expert has moved, what had to be read twice included [B]."""

    @property
    @abstractmethod
    def moved_bytes(self) -> int:
        """Bytes that came over the link so far [B]."""

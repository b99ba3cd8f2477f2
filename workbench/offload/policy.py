"""What a cache policy is: who leaves when another must enter."""

from abc import ABC, abstractmethod
from collections.abc import Sequence, Set
from dataclasses import dataclass

from workbench.core.records import ExpertKey
from workbench.offload.requests import Requests

__all__ = ["BYPASSED", "NOBODY", "CachePolicy", "CacheShape"]

NOBODY, BYPASSED = -1, -2
"""Instead of a page that left: a slot was free; the missed page got none."""


@dataclass(frozen=True, kw_only=True)
class CacheShape:
    """What is cached: experts as pages, numbered `layer * num_experts + expert`.

    Args:
        num_layers: MoE layers of the model.
        num_experts: experts of a layer.
        capacity: experts that fit into the fast tier, over all layers.
        top_k: experts that one token asks for in a layer, at most.
    """

    num_layers: int
    num_experts: int
    capacity: int
    top_k: int

    @property
    def num_pages(self) -> int:
        """Experts of the model."""
        return self.num_layers * self.num_experts

    def key(self, page: int) -> ExpertKey:
        """Layer and expert of a page."""
        return ExpertKey(*divmod(page, self.num_experts))


class CachePolicy(ABC):
    """Which resident expert leaves when a miss needs room.

    The cache calls, for the set of experts that one layer asks for: `observe` with the whole set, `touch_all`
    with the hits, then `place` with the misses: for every one `victim` and `leave` if there is no room, `enter`,
    and `touch`. An expert that was prefetched enters and is not touched. Hits and misses come in the order of
    pages.

    A policy says what happens to one page. `touch_all` and `place` do a whole set by that; a policy that can do
    them faster may do them itself, with the same outcome.

    Args:
        shape: of the model and of the cache.

    Attributes:
        reads_future: an oracle: replay only, because it must `foresee`.
        is_stack: a larger cache holds whatever a smaller one does (inclusion), so more is never worse; for
            sets that fit into the smaller one.
    """

    reads_future: bool = False
    is_stack: bool = False

    def __init__(self, shape: CacheShape):
        self.shape = shape

    @abstractmethod
    def touch(self, page: int) -> None:
        """A resident page is asked for."""

    @abstractmethod
    def victim(self, pinned: Set[int]) -> int:
        """The resident page that leaves next, none of the pinned ones; there is one."""

    def enter(self, page: int) -> None:  # noqa: B027
        """A page became resident."""

    def leave(self, page: int) -> None:  # noqa: B027
        """A resident page has left."""

    def touch_all(self, pages: Sequence[int]) -> None:
        """Resident pages of a set are asked for, one after the other."""
        for page in pages:
            self.touch(page)

    def place(self, pages: Sequence[int], free: int, pinned: frozenset[int], left: list[int]) -> None:
        """Missed pages of a set become resident, one after the other, and others leave for them.

        Args:
            free: slots without a page, which are taken first.
            pinned: pages that may not leave; `pages` are among them.
            left: is filled: for every page who left for it, `NOBODY` or `BYPASSED`; what is not said of the first
                pages is `NOBODY`. If the policy fails, the last page in it is not resident, those before it are.
        """
        for page in pages:
            left.append(NOBODY)
            if not self.admit(page):
                left[-1] = BYPASSED
                continue
            if free:
                free -= 1
            else:
                left[-1] = self.victim(pinned)
                self.leave(left[-1])
            self.enter(page)
            self.touch(page)

    def observe(self, layer: int, pages: Sequence[int], counts: Sequence[int]) -> None:  # noqa: B027
        """A layer asks for a set of pages, in ascending order; `counts` are the tokens of each."""

    def admit(self, page: int) -> bool:
        """Whether a missed page is worth keeping; else it is used once and dropped (bypass)."""
        return True

    def foresee(self, requests: Requests) -> None:  # noqa: B027
        """Everything that will be asked for, before the first request."""

    def begin_sequence(self) -> None:  # noqa: B027
        """A new text begins."""

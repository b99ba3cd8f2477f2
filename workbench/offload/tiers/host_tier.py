"""Which experts lie in the memory of the host, between device and disk: who comes up, who goes down, who leaves."""

from collections import deque
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple, final

from workbench.offload.policy import CachePolicy

__all__ = ["HostTier", "Source"]


class Source(NamedTuple):
    """Where an expert is copied from.

    Args:
        slot: of the host.
        is_due: the slot is given away with the next page that comes down: the copy out of it must be queued at once.
            Else it is a guess, which may wait.
    """

    slot: int
    is_due: bool


@final
class HostTier:
    """Slots of the host, filled with what the device lets go. Experts are read-only, so who leaves it costs nothing.

    Exclusive: an expert that comes up leaves the host, so that the tiers hold as many different ones as they can.
    Inclusive: it stays as well, and need not be copied down again.

    One slot more than experts is used: a slot that was given up is the last to be filled again, so that what is
    copied out of it meanwhile stays whole. All of this is decided here, for live copies and simulated ones alike.

    Args:
        capacity: experts that it holds.
        policy: who leaves.
        is_inclusive: see above.

    Attributes:
        slot_of: page -> slot.
    """

    def __init__(self, capacity: int, policy: CachePolicy, *, is_inclusive: bool = False):
        if capacity < 1:
            raise ValueError(f"a host tier needs room for at least one expert, got {capacity}")
        self.capacity, self.policy, self.is_inclusive = capacity, policy, is_inclusive
        self._slot_of: dict[int, int] = {}
        self._free = deque(range(capacity + 1))
        self._pinned: set[int] = set()
        # guessed, pinned until they have come.
        self._guessed: set[int] = set()

    @property
    def slot_of(self) -> Mapping[int, int]:
        """Page -> slot of what is here, or on its way to here."""
        return MappingProxyType(self._slot_of)

    @property
    def has_room(self) -> bool:
        """Whether a page could enter: there is room, or somebody who may leave."""
        return len(self._slot_of) < self.capacity or len(self._pinned) < len(self._slot_of)

    def wants(self, page: int) -> bool:
        """Whether a page that loses its slot on the device is to come down."""
        # if it was guessed it has come, but the copy here is still whole.
        self.release(page)
        return page not in self._slot_of and self.has_room

    def source(self, page: int, *, is_demand: bool) -> Source | None:
        """Where a page comes up from; None if it is not here. One that is guessed stays until it has come."""
        if page not in self._slot_of:
            return None
        if not is_demand and self.pin(page):
            self._guessed.add(page)
            return Source(self._slot_of[page], False)
        if self.is_inclusive:
            self.policy.touch(page)
            return Source(self._slot_of[page], True)
        return Source(self.leave(page), True)

    def collect(self, has_come: Callable[[int], bool]) -> None:
        """Guesses that have come are no longer here, but where tiers are inclusive."""
        for page in [page for page in self._guessed if has_come(page)]:
            self.release(page)
            if not self.is_inclusive:
                self.leave(page)

    def release(self, page: int) -> None:
        """A guess is none any more: it was called off, or has come."""
        if page in self._guessed:
            self._guessed.remove(page)
            self._pinned.discard(page)

    def enter(self, page: int) -> int:
        """The slot into which a page goes; if there is no room, another page leaves for it."""
        assert page not in self._slot_of and self.has_room
        if len(self._slot_of) == self.capacity:
            self.leave(self.policy.victim(frozenset(self._pinned)))
        self.policy.enter(page)
        self._slot_of[page] = self._free.popleft()
        return self._slot_of[page]

    def leave(self, page: int) -> int:
        """The slot that a page gives up."""
        slot = self._slot_of.pop(page)
        self.policy.leave(page)
        self._free.append(slot)
        return slot

    def pin(self, page: int) -> bool:
        """Let nobody take a page's slot; False if then nobody could enter any more, and it is not pinned."""
        self._pinned.add(page)
        if not self.has_room:
            self._pinned.remove(page)
            return False
        return True

    def unpin(self, page: int) -> None:
        """Its slot may be taken again, unless it is on its way up."""
        if page not in self._guessed:
            self._pinned.discard(page)

    def __repr__(self) -> str:
        return f"HostTier({len(self._slot_of)} of {self.capacity} experts, {type(self.policy).__name__})"

"""Three tiers on a simulated clock: the decisions of the live ones, and the time that two cost models say."""

from collections.abc import Iterable, Mapping, Sequence
from typing import final

from workbench.offload.replay.simulated_link import SimulatedLink
from workbench.offload.tiers.cost import LinkCost
from workbench.offload.tiers.host_tier import HostTier
from workbench.offload.tiers.link import Link, Traffic

__all__ = ["SimulatedTiers"]


@final
class SimulatedTiers(Link):
    """A channel from the disk to the device, and one between host and device for both ways.

    The channels work side by side. A block from disk does not wait for the expert that it overwrites to be saved:
    through a buffer it need not.

    Args:
        host: who is there, and who goes where.
        disk: cost of the way from the disk to the device.
        copy: cost of the way between host and device.
        block_bytes: of an expert [B].
    """

    hears_leaving = True

    def __init__(self, host: HostTier, *, disk: LinkCost, copy: LinkCost, block_bytes: int):
        self.host, self.block_bytes = host, block_bytes
        self._disk, self._copy = SimulatedLink(disk, block_bytes), SimulatedLink(copy, block_bytes)
        self._is_from_host: dict[int, bool] = {}
        self._leaving: dict[int, int] = {}
        self._down_bytes = 0
        self._seconds = {"disk": disk.seconds(block_bytes), "copy": copy.seconds(block_bytes)}

    @property
    def moved_bytes(self) -> int:
        """Bytes moved so far, all ways [B]."""
        return self._disk.moved_bytes + self._copy.moved_bytes

    def traffic(self) -> Mapping[str, Traffic]:
        """What went over each way so far."""
        ways = {
            "disk to device": (self._disk.moved_bytes, self._seconds["disk"]),
            "host to device": (self._copy.moved_bytes - self._down_bytes, self._seconds["copy"]),
            "device to host": (self._down_bytes, self._seconds["copy"]),
        }
        return {name: Traffic(size, size / self.block_bytes * seconds) for name, (size, seconds) in ways.items()}

    def now(self) -> float:
        """Simulated seconds since the beginning."""
        return self._disk.now()

    def spend(self, seconds: float) -> None:
        """Let time pass: the computation works, and the channels move guesses."""
        self._disk.spend(seconds)
        self._copy.spend(seconds)

    def observe(self, layer: int, pages: Sequence[int], counts: Sequence[int]) -> None:
        """The host's policy hears what is asked for."""
        self.host.policy.observe(layer, pages, counts)

    def begin_sequence(self) -> None:
        """The host's policy hears that a text begins."""
        self.host.policy.begin_sequence()

    def leave(self, page: int, slot: int) -> int:
        """An expert loses its slot: it goes down with the next fetch, unless it is in the host."""
        if not self.host.wants(page):
            return 0
        self._leaving[slot] = page
        return self.block_bytes

    def fetch(self, pages: Sequence[int], slots: Sequence[int], *, is_demand: bool) -> None:
        """Queue moves."""
        self.host.collect(self._copy.is_here)
        for page, slot in zip(pages, slots, strict=True):
            source = self.host.source(page, is_demand=is_demand)
            gone = self._leaving.pop(slot, None)
            if gone is not None:
                self.host.enter(gone)
                self._down_bytes += self.block_bytes
                # a number that no page has: nobody waits for it.
                self._copy.fetch([-1 - gone], [slot], is_demand=True)
            self._is_from_host[page] = source is not None
            is_due = is_demand if source is None else source.is_due
            self._link_of(page).fetch([page], [slot], is_demand=is_due)

    def is_here(self, page: int) -> bool:
        """Whether nothing of this expert is on its way at this moment."""
        return self._link_of(page).is_here(page)

    def wait(self, pages: Iterable[int]) -> dict[int, float]:
        """Move the clock to when these are here."""
        stalls: dict[int, float] = {}
        for page in pages:
            link = self._link_of(page)
            stalls |= link.wait([page])
            (self._disk if link is self._copy else self._copy).spend(stalls[page])
        self.host.collect(self._copy.is_here)
        return stalls

    def call_off(self, page: int) -> bool:
        """Stop a guessed move; False if it is here already."""
        is_stopped = self._link_of(page).call_off(page)
        if is_stopped:
            self.host.release(page)
        return is_stopped

    def bytes_of(self, page: int) -> int:
        """Bytes that the newest move of an expert took [B]."""
        return self._link_of(page).bytes_of(page)

    def hold(self, pages: Iterable[int]) -> dict[int, int]:
        """The host's slots of experts, which stay there until `let_go`; those that cannot be held are left out."""
        held = {page: self.host.slot_of[page] for page in pages if page in self.host.slot_of and self.host.pin(page)}
        # who is on the way down can be computed with once it is there.
        self._disk.spend(sum(self._copy.wait([-1 - page for page in held]).values()))
        return held

    def let_go(self, pages: Iterable[int]) -> None:
        """Experts that were held may leave the host."""
        for page in pages:
            self.host.unpin(page)

    def _link_of(self, page: int) -> SimulatedLink:
        return self._copy if self._is_from_host.get(page, False) else self._disk

"""A link on a simulated clock: the same calls, and the time that a cost model says."""

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import final

from workbench.offload.tiers.cost import LinkCost
from workbench.offload.tiers.link import Link

__all__ = ["SimulatedLink"]


@final
class SimulatedLink(Link):
    """One channel: demands in their order, guesses in chunks while nothing is demanded.

    A demand waits for the chunk that is under way, as the real link does. `spend` is the computation: time
    in which guesses move on.

    Args:
        cost: of the link.
        block_bytes: of an expert [B].
        chunk_bytes: of a guessed copy [B].
    """

    def __init__(self, cost: LinkCost, block_bytes: int, *, chunk_bytes: int = 256 * 1024):
        self.cost, self.block_bytes, self.chunk_bytes = cost, block_bytes, chunk_bytes
        self._now = 0.0
        self._free_at = 0.0
        self._moved = 0
        self._arrives: dict[int, float] = {}
        self._guesses: OrderedDict[int, int] = OrderedDict()
        self._moved_for: dict[int, int] = {}
        self._block_seconds = cost.seconds(block_bytes)

    @property
    def moved_bytes(self) -> int:
        """Bytes moved so far [B]."""
        return self._moved

    def now(self) -> float:
        """Simulated seconds since the beginning."""
        return self._now

    def spend(self, seconds: float) -> None:
        """Let time pass: the computation works, and the link moves guesses."""
        self._now += seconds
        if self._guesses:
            self._serve_guesses()

    def fetch(self, pages: Sequence[int], slots: Sequence[int], *, is_demand: bool) -> None:
        """Queue moves."""
        if self._guesses:
            self._serve_guesses()
        if not is_demand:
            if not self._guesses:
                # nothing moves before it was asked for.
                self._free_at = max(self._free_at, self._now)
            for page in pages:
                self._guesses[page] = self._moved_for[page] = 0
            return
        self._moved_for.update(dict.fromkeys(pages, self.block_bytes))
        free_at = self._free_at if self._free_at > self._now else self._now
        if self._block_seconds:
            for page in pages:
                free_at += self._block_seconds
                self._arrives[page] = free_at
        self._free_at = free_at
        self._moved += self.block_bytes * len(pages)

    def is_here(self, page: int) -> bool:
        """Whether nothing of this expert is on its way at this moment."""
        if self._guesses:
            self._serve_guesses()
            if page in self._guesses:
                return False
        return self._arrives.get(page, 0.0) <= self._now

    def wait(self, pages: Iterable[int]) -> dict[int, float]:
        """Move the clock to when these are here."""
        if not self._block_seconds and not self._guesses:
            return dict.fromkeys(pages, 0.0)
        stalls = {}
        for page in pages:
            if page in self._guesses:
                self._hurry(page)
            arrival = self._arrives.pop(page, 0.0)
            stalls[page] = 0.0
            if arrival > self._now:
                stalls[page], self._now = arrival - self._now, arrival
        return stalls

    def call_off(self, page: int) -> bool:
        """Stop a guessed move; False if it is here already."""
        if self._guesses:
            self._serve_guesses()
        return self._guesses.pop(page, None) is not None

    def bytes_of(self, page: int) -> int:
        """Bytes that the newest move of an expert took [B]."""
        return self._moved_for.get(page, 0)

    def _serve_guesses(self) -> None:
        """Bring the guesses to where they are now; the chunk under way may end later."""
        # a link that takes no time has brought everything at once.
        while self._guesses and (self._free_at < self._now or not self._block_seconds):
            page, done = next(iter(self._guesses.items()))
            self._free_at = self._move(page, done, self.chunk_bytes)

    def _hurry(self, page: int) -> None:
        self._free_at = max(self._free_at, self._now)
        self._move(page, self._guesses[page], self.block_bytes)

    def _move(self, page: int, done: int, most: int) -> float:
        size = min(most, self.block_bytes - done)
        end = self._free_at + self.cost.seconds(size)
        self._moved += size
        self._moved_for[page] += size
        if done + size == self.block_bytes:
            del self._guesses[page]
            self._arrives[page] = self._free_at = end
        else:
            self._guesses[page] = done + size
        return end

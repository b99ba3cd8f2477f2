"""Every byte that an offload engine moved, and what it was good for."""

from dataclasses import dataclass, field
from typing import final

from workbench.core.html import facts
from workbench.core.units import human_bytes, human_seconds

__all__ = ["Ledger"]


@final
@dataclass(kw_only=True)
class Ledger:
    """Counts since the engine began.

    What is demanded, what was guessed and used, what was guessed for nothing, what was guessed and still
    waits for a use, and what was written back add up to the bytes that the link moved, to the byte.

    Args:
        hits: requests whose expert was there.
        misses: requests that had to read.
        late: requests whose expert had been guessed and was on its way.
        evictions: experts that left.
        prefetches: experts that were guessed.
        bypasses: misses that were used once and not kept.
        host_computed: requests whose expert lay in the host and computed there.
        skipped: assignments of a token to an expert that were not computed, because they weigh little.
        demand_bytes: read for misses [B].
        useful_bytes: guessed and used [B].
        wasted_bytes: guessed, and evicted or called off without a use [B].
        waiting_bytes: guessed, there, and not used yet [B].
        written_bytes: sent down to the host when an expert lost its slot [B]; without a host tier none.
        row_bytes: of rows that went to the host and came back [B]; no part of the sum, because no expert moved.
        stall_seconds: the computation stood still [s].
    """

    hits: int = 0
    misses: int = 0
    late: int = 0
    evictions: int = 0
    prefetches: int = 0
    bypasses: int = 0
    host_computed: int = 0
    skipped: int = 0
    demand_bytes: int = 0
    useful_bytes: int = 0
    wasted_bytes: int = 0
    waiting_bytes: int = 0
    written_bytes: int = 0
    row_bytes: int = 0
    stall_seconds: float = 0.0
    unused: dict[int, int] = field(default_factory=dict, repr=False)

    @property
    def requests(self) -> int:
        """Experts that were asked for, once per layer and pass."""
        return self.hits + self.misses + self.late + self.host_computed

    @property
    def hit_rate(self) -> float:
        """Share of requests whose expert was there [1]; NaN when nothing was asked for."""
        return self.hits / self.requests if self.requests else float("nan")

    @property
    def moved_bytes(self) -> int:
        """All bytes [B]."""
        return self.demand_bytes + self.useful_bytes + self.wasted_bytes + self.waiting_bytes + self.written_bytes

    def guessed(self, page: int, num_bytes: int) -> None:
        """A guess has come this far; call it again when it has come further."""
        self.waiting_bytes += num_bytes - self.unused.get(page, 0)
        self.unused[page] = num_bytes

    def used(self, page: int) -> int:
        """A guess turned out to be of use; its bytes."""
        num_bytes = self.unused.pop(page, 0)
        self.waiting_bytes -= num_bytes
        self.useful_bytes += num_bytes
        return num_bytes

    def wasted(self, page: int) -> int:
        """A guess goes without having been used; its bytes, 0 for what was no guess."""
        num_bytes = self.unused.pop(page, 0)
        self.waiting_bytes -= num_bytes
        self.wasted_bytes += num_bytes
        return num_bytes

    def to_text(self) -> str:
        """The counts on one line."""
        moved = f"{human_bytes(self.moved_bytes - self.written_bytes)} read"
        guessed = self.useful_bytes + self.wasted_bytes + self.waiting_bytes
        if guessed:
            moved += f" ({human_bytes(guessed)} of it guessed, {human_bytes(self.wasted_bytes)} for nothing)"
        if self.written_bytes:
            moved += f", {human_bytes(self.written_bytes)} sent down"
        if self.host_computed:
            moved += f", {self.host_computed:,} computed in the host"
        stall = human_seconds(self.stall_seconds)
        skipped = f", {self.skipped:,} assignments skipped" if self.skipped else ""
        return f"hit rate {self.hit_rate:.3f} of {self.requests:,} requests, {moved}, stalled {stall}{skipped}"

    def _repr_html_(self) -> str:
        rows = {
            "hit rate": f"{self.hit_rate:.3f} of {self.requests:,}",
            "misses, late": f"{self.misses:,}, {self.late:,}",
            "read for misses": human_bytes(self.demand_bytes),
            "guessed: used, wasted, waiting": ", ".join(
                human_bytes(n) for n in (self.useful_bytes, self.wasted_bytes, self.waiting_bytes)
            ),
            "sent down, computed in the host": f"{human_bytes(self.written_bytes)}, {self.host_computed:,}",
            "stalled": human_seconds(self.stall_seconds),
        }
        return facts("Ledger", rows)

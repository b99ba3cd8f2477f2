"""What moving an expert costs, as numbers that were measured."""

import json
import random
import statistics
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from workbench.core.html import facts
from workbench.core.units import human_bytes
from workbench.offload.store.expert_store import ExpertStore
from workbench.offload.tiers.disk_link import DiskLink
from workbench.offload.tiers.pool import SlotPool

__all__ = ["LinkCost", "measure_link"]


@dataclass(frozen=True, kw_only=True)
class LinkCost:
    """Time to move bytes over a link: `start_seconds + bytes / bytes_per_second`.

    Args:
        start_seconds: of each move, however small [s].
        bytes_per_second: of a long move [B/s].
        spread: largest over least of the speeds that were measured [1]; 1 where nothing was.
        block_bytes: size of the moves that were measured [B]; 0 where nothing was.
        source: where the numbers come from, in words.
    """

    start_seconds: float = 0.0
    bytes_per_second: float
    spread: float = 1.0
    block_bytes: int = 0
    source: str = "assumed"

    def __post_init__(self) -> None:
        if self.bytes_per_second <= 0 or self.start_seconds < 0:
            raise ValueError(
                f"a link needs a speed above 0 and a start of 0 or more, got {self.bytes_per_second} B/s and "
                f"{self.start_seconds} s"
            )

    @property
    def is_noisy(self) -> bool:
        """The measured speeds differ by more than a factor of two: no conclusion should hang on one of them."""
        return self.spread > 2

    def seconds(self, num_bytes: float) -> float:
        """Time of one move [s]."""
        return self.start_seconds + num_bytes / self.bytes_per_second

    def to_json(self) -> str:
        """The numbers as text."""
        return json.dumps(asdict(self))

    def __str__(self) -> str:
        noisy = ", noisy" if self.is_noisy else ""
        spread = f", spread {self.spread:.2f}{noisy}" if self.block_bytes else ""
        return f"{human_bytes(self.bytes_per_second)}/s in blocks of {human_bytes(self.block_bytes)}{spread}"

    def _repr_html_(self) -> str:
        rows = {
            "speed": f"{human_bytes(self.bytes_per_second)}/s",
            "start of a move": f"{self.start_seconds * 1e6:.0f} us",
            "spread of the speeds": f"{self.spread:.2f}{' (noisy)' if self.is_noisy else ''}",
        }
        return facts("LinkCost", rows, note=self.source)


def measure_link(store: ExpertStore, pool: SlotPool, *, threads: int = 2, rounds: int = 9, seed: int = 0) -> LinkCost:
    """The speed at which experts of this store come into slots of this pool.

    Every round demands a number of random experts at once and waits for them. The start of a move is not told
    apart from its length: it is part of the speed for this size of block.

    Args:
        pool: whose slots are overwritten: not that of an engine, which would take them for its experts.
        threads: that read, as many as the engine has.
        rounds: of up to sixteen experts each; the median round counts, the spread is over all of them.
    """
    link, draw = DiskLink(store, pool, threads=threads), random.Random(seed)
    count = min(16, pool.capacity, store.num_pages)
    speeds = []
    try:
        for _ in range(rounds + 1):
            pages = draw.sample(range(store.num_pages), count)
            began = time.perf_counter()
            link.fetch(pages, range(count), is_demand=True)
            link.wait(pages)
            speeds.append(count * store.shape.stride / (time.perf_counter() - began))
    finally:
        link.close()
    # the first round wakes the threads and the drive.
    speeds = speeds[1:]
    return LinkCost(
        bytes_per_second=statistics.median(speeds),
        spread=max(speeds) / min(speeds),
        block_bytes=store.shape.stride,
        source=f"{rounds} rounds of {count} random experts from {Path(store.folder).name}, {store.way}",
    )

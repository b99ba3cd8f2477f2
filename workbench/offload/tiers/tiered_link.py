"""The way into slots where the host's memory lies between device and disk."""

import time
from collections.abc import Iterable, Mapping, Sequence, Set
from typing import final

from workbench.offload.store.expert_store import ExpertStore
from workbench.offload.tiers.disk_link import DiskLink
from workbench.offload.tiers.host_tier import HostTier
from workbench.offload.tiers.link import Link, Traffic
from workbench.offload.tiers.mover import Move, Mover
from workbench.offload.tiers.pool import SlotPool

__all__ = ["TieredLink"]


@final
class TieredLink(Link):
    """Experts come from the host if they lie there, else from disk; who leaves the device goes down to the host.

    All decisions are made in the order of the calls; the threads only copy.

    Args:
        pool: slots of the device.
        host_pool: slots of the host, one more than the tier holds.
        host: who is there, and who goes where.
        threads: that read the disk at the same time.
    """

    hears_leaving = True

    def __init__(
        self,
        store: ExpertStore,
        pool: SlotPool,
        host_pool: SlotPool,
        host: HostTier,
        *,
        threads: int = 2,
    ):
        self.store, self.pool, self.host_pool = store, pool, host_pool
        self.host = host
        self._mover = Mover(pool, host_pool)
        # a block from disk must not fall onto an expert that is still being saved.
        self._disk = DiskLink(store, pool, threads=threads, before_fill=self._mover.wait_until_saved)
        # the newest copy of each page whose newest copy came from the host.
        self._moves: dict[int, Move] = {}
        self._leaving: dict[int, int] = {}

    @property
    def moved_bytes(self) -> int:
        """Bytes read, brought and written back so far [B]."""
        return self._disk.moved_bytes + self._mover.moved_bytes

    def traffic(self) -> Mapping[str, Traffic]:
        """What went over each way so far."""
        return {**self._disk.traffic(), **self._mover.traffic()}

    def now(self) -> float:
        """Seconds on the clock of this machine."""
        return self._disk.now()

    def leave(self, page: int, slot: int) -> int:
        """An expert loses its slot: it goes down with the next fetch, unless it is in the host."""
        if not self.host.wants(page):
            return 0
        self._leaving[slot] = page
        return self.store.shape.num_bytes

    def fetch(self, pages: Sequence[int], slots: Sequence[int], *, is_demand: bool) -> None:
        """Save who loses these slots, and begin to bring experts into them.

        Raises:
            RuntimeError: the device failed.
            ValueError: the link is closed.
        """
        self._collect()
        self._save_leaving(except_for=frozenset(slots))
        from_disk, begun = [], []
        try:
            for page, slot in zip(pages, slots, strict=True):
                begun.append(page)
                if not self._exchange(page, slot, is_demand=is_demand):
                    from_disk.append((page, slot))
            if from_disk:
                self._disk.fetch(*zip(*from_disk, strict=True), is_demand=is_demand)
        except BaseException:
            # whatever it was, an interrupt included: nobody will wait for these.
            for page in begun:
                self.call_off(page)
                self.host.release(page)
            raise

    def is_here(self, page: int) -> bool:
        """Whether nothing of this expert is on its way to the device any more."""
        move = self._moves.get(page)
        return self._disk.is_here(page) if move is None else move.is_done

    def wait(self, pages: Iterable[int]) -> dict[int, float]:
        """Wait for copies and reads; one that was only guessed becomes a demand.

        Raises:
            OSError: one could not be read.
            RuntimeError: the device failed.
            ValueError: one is damaged, or the link is closed.
        """
        stalls, others = {}, []
        for page in pages:
            move = self._moves.get(page)
            if move is None:
                others.append(page)
                continue
            began = time.perf_counter()
            self._mover.wait(move)
            stalls[page] = time.perf_counter() - began
        self._collect()
        return stalls | self._disk.wait(others)

    def call_off(self, page: int) -> bool:
        """Stop a copy; False if it is here already."""
        move = self._moves.get(page)
        if move is None:
            return self._disk.call_off(page)
        if not self._mover.call_off(move):
            return False
        self.host.release(page)
        return True

    def bytes_of(self, page: int) -> int:
        """Bytes that the newest fetch of an expert took [B]."""
        move = self._moves.get(page)
        return self._disk.bytes_of(page) if move is None else self.store.shape.num_bytes * move.is_done

    def observe(self, layer: int, pages: Sequence[int], counts: Sequence[int]) -> None:
        """The host's policy hears what is asked for."""
        self.host.policy.observe(layer, pages, counts)

    def begin_sequence(self) -> None:
        """The host's policy hears that a text begins."""
        self.host.policy.begin_sequence()

    def hold(self, pages: Iterable[int]) -> dict[int, int]:
        """The host's slots of experts, which stay there until `let_go`; those that cannot be held are left out."""
        held = {page: self.host.slot_of[page] for page in pages if page in self.host.slot_of and self.host.pin(page)}
        for slot in held.values():
            self._mover.wait_until_filled(slot)
        return held

    def let_go(self, pages: Iterable[int]) -> None:
        """Experts that were held may leave the host."""
        for page in pages:
            self.host.unpin(page)

    def settle(self) -> None:
        """Wait until nothing is on its way."""
        self._save_leaving(except_for=frozenset())
        self._mover.settle()
        self._disk.settle()
        self._collect()

    def close(self) -> None:
        """End the threads."""
        # first the readers: they may wait for a copy.
        self._disk.close()
        self._mover.close()

    def _exchange(self, page: int, slot: int, *, is_demand: bool) -> bool:
        """Save who loses a slot, and bring a page into it if it is in the host; False if it is not."""
        self._moves.pop(page, None)
        source = self.host.source(page, is_demand=is_demand)
        if slot in self._leaving:
            self._save(slot)
        if source is not None:
            self._moves[page] = self._mover.bring(source.slot, slot, is_demand=source.is_due)
        return source is not None

    def _save_leaving(self, *, except_for: Set[int]) -> None:
        """What nobody takes the place of goes down too, as when the device's cache shrinks."""
        for slot in [slot for slot in self._leaving if slot not in except_for]:
            self._save(slot)

    def _save(self, slot: int) -> None:
        page = self._leaving.pop(slot)
        host_slot = self.host.enter(page)
        try:
            self._mover.save(slot, host_slot)
        except BaseException:
            # what is not saved must not be taken for saved.
            self.host.leave(page)
            raise

    def _collect(self) -> None:
        self.host.collect(lambda page: self._moves[page].is_done)

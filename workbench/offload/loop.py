"""What happens to the experts that a layer asks for: one loop for the live engine and for replay."""

from collections.abc import Callable, Iterator, Sequence
from typing import Literal, NamedTuple, final

from workbench.offload.cache import ExpertCache, Wave
from workbench.offload.ledger import Ledger
from workbench.offload.policy import NOBODY
from workbench.offload.prefetcher import Guess, Observation, Prefetcher
from workbench.offload.tiers.link import Link
from workbench.offload.turns import Turns

__all__ = ["Happening", "Kind", "OffloadLoop"]

Kind = Literal["hit", "miss", "prefetch", "prefetch_late", "evict", "host_compute"]
"""What may happen to an expert."""


class Happening(NamedTuple):
    """One cache event, as the loop notes it.

    Args:
        seconds: on the clock of the link [s].
        token: that it happened for, -1 for none.
        kind: what a request met: `hit`, `miss`, `prefetch` (guessed, and there in time) or `prefetch_late`; or
            `evict`.
        bytes: moved for it [B]; of an eviction, what is written back, and those of a guess that was of no use.
    """

    seconds: float
    token: int
    page: int
    kind: Kind
    bytes: int
    stall_seconds: float


def _nothing() -> None:
    """What most do while experts are on their way."""


@final
class OffloadLoop:
    """A cache, a prefetcher and a link, driven by what layers ask for.

    Args:
        cache: which experts are in slots.
        link: brings the others.
        prefetcher: guesses; None for none.
        block_bytes: of an expert [B].
        note: called with every event; None counts only.
        most_guesses: guesses taken of one prediction, by default a quarter of the cache: more would turn it over.

    Attributes:
        ledger: what was moved.
    """

    def __init__(
        self,
        cache: ExpertCache,
        link: Link,
        prefetcher: Prefetcher | None,
        *,
        note: Callable[[Happening], None] | None = None,
        most_guesses: int | None = None,
    ):
        self.cache, self.link, self.prefetcher, self.note = cache, link, prefetcher, note
        self.ledger = Ledger()
        self._most_guesses = most_guesses
        # guesses that no layer has judged yet: page -> number of the set that may ask for it.
        self._guessed: dict[int, int] = {}
        self._sets = 0
        self._turns = Turns(cache.policy.shape.num_layers)
        # of the wave that is served: what is read for it, waits, and bytes of guesses that it proved right.
        self._fetched: Sequence[int] = ()
        self._stalls: dict[int, float] = {}
        self._proved: dict[int, int] = {}

    def serve(
        self, seen: Observation, tokens: Sequence[int], *, meanwhile: Callable[[], None] = _nothing
    ) -> Iterator[Wave]:
        """The waves of a layer's set; when one is given out, its experts are in their slots.

        Args:
            seen: what the layer asks for.
            tokens: the first token that asks for each page; only what is noted needs them.
            meanwhile: called once, when the first wave is on its way.

        Raises:
            OSError: an expert could not be read; it is not in the cache.
            ValueError: an expert is damaged; it is not in the cache.
        """
        self._sets += 1
        pages, prefetcher = seen.pages, self.prefetcher
        self.cache.policy.observe(seen.layer, pages, seen.counts)
        if self.link.hears_leaving:
            self.link.observe(seen.layer, pages, seen.counts)
        for wave in self.cache.step(pages):
            try:
                late = self._bring(wave, seen, tokens, prefetcher, meanwhile)
            except BaseException:
                # whatever it was, an interrupt included: what is not complete must not be taken for resident.
                self._take_back(wave)
                raise
            prefetcher, meanwhile = None, _nothing
            self._count(wave, late)
            if self.note is not None:
                self._tell(wave, late, dict(zip(pages, tokens, strict=True)), self.note)
            yield wave

    def begin_pass(self, token_ids: Sequence[int]) -> None:
        """A pass over these tokens begins: what is guessed of it is on its way before the first layer asks.

        Raises:
            OSError: the guesses cannot be fetched; none of them is in the cache.
        """
        if self.prefetcher is not None:
            self._fetch_guesses(self.prefetcher.begin_pass(token_ids), frozenset())

    def begin_sequence(self) -> None:
        """A new text begins."""
        self.cache.policy.begin_sequence()
        self.link.begin_sequence()
        if self.prefetcher is not None:
            self.prefetcher.begin_sequence()

    def take_stock(self) -> None:
        """Enter what is still on its way into the ledger, as far as it has come: then it is exact to the byte."""
        for page in list(self._guessed):
            self.ledger.guessed(page, self.link.bytes_of(page))

    def resize(self, capacity: int) -> None:
        """Hold so many experts from now on; call it while nothing is on its way."""
        for page in list(self._guessed):
            self._judge(page)
        slot_of = dict(self.cache.slot_of)
        for page in self.cache.resize(capacity):
            self.ledger.evictions += 1
            self._left(page, -1, slot_of[page])

    def _bring(
        self,
        wave: Wave,
        seen: Observation,
        tokens: Sequence[int],
        prefetcher: Prefetcher | None,
        meanwhile: Callable[[], None],
    ) -> Sequence[int]:
        """Read what a wave misses and let a prefetcher guess meanwhile; the hits that had to be waited for."""
        link, late, missed = self.link, list[int](), wave.misses
        if wave.bypassed:
            missed = missed + wave.bypassed
        self._fetched, self._stalls, self._proved = (), {}, {}
        if missed:
            self._replaced(wave, seen, tokens)
            link.fetch(missed, wave.slots + [-1] * len(wave.bypassed), is_demand=True)
            self._fetched = missed
        if self._guessed:
            late = [page for page in wave.hits if not link.is_here(page)]
        if prefetcher is not None:
            self._prefetch(seen, prefetcher)
        meanwhile()
        if missed or late:
            self._stalls = link.wait(missed + late)
        return late

    def _take_back(self, wave: Wave) -> None:
        """Drop every expert of a wave that failed, but for those that were there before it."""
        for page in wave.evicted:
            if page in self._guessed:
                self._left(page, -1, None)
        for page in self._fetched:
            self.link.call_off(page)
            self.ledger.wasted_bytes += self.link.bytes_of(page)
        for page in wave.misses:
            self.cache.drop(page)
        for page in wave.hits:
            if page in self._guessed:
                self.link.call_off(page)
                self._forget(page)

    def _count(self, wave: Wave, late: Sequence[int]) -> None:
        ledger, missed = self.ledger, self._fetched
        ledger.hits += len(wave.hits)
        if late:
            ledger.hits -= len(late)
            ledger.late += len(late)
        if self._stalls:
            ledger.stall_seconds += sum(self._stalls.values())
        if missed:
            ledger.misses += len(missed)
            ledger.bypasses += len(wave.bypassed)
            ledger.demand_bytes += sum(map(self.link.bytes_of, missed))
        if self._guessed or ledger.unused:
            for page in wave.hits:
                self._use(page)

    def _tell(
        self, wave: Wave, late: Sequence[int], first_token: dict[int, int], note: Callable[[Happening], None]
    ) -> None:
        now, stalls = self.link.now(), self._stalls
        for page in wave.hits:
            kind: Kind = "prefetch_late" if page in late else "prefetch" if page in self._proved else "hit"
            note(Happening(now, first_token[page], page, kind, self._proved.get(page, 0), stalls.get(page, 0.0)))
        for page in self._fetched:
            moved = self.link.bytes_of(page)
            note(Happening(now, first_token[page], page, "miss", moved, stalls.get(page, 0.0)))

    def _replaced(self, wave: Wave, seen: Observation, tokens: Sequence[int]) -> None:
        gone = len(wave.evicted) - wave.evicted.count(NOBODY)
        self.ledger.evictions += gone
        is_heard = self.note is not None or self.link.hears_leaving
        if gone and (self._guessed or self.ledger.unused or is_heard):
            first_token = {} if self.note is None else dict(zip(seen.pages, tokens, strict=True))
            for page, evicted in zip(wave.misses, wave.evicted, strict=True):
                if evicted >= 0:
                    self._left(evicted, first_token.get(page, -1), self.cache.slot_of[page])

    def _prefetch(self, seen: Observation, prefetcher: Prefetcher) -> None:
        prefetcher.learn(seen)
        self._turns.observe(seen.layer)
        self._call_off(seen)
        self._fetch_guesses(prefetcher.predict(seen), frozenset(seen.pages))

    def _fetch_guesses(self, guesses: Sequence[Guess], asked: frozenset[int]) -> None:
        """Begin to bring the surest of them that are neither there nor asked for."""
        experts = self.cache.policy.shape.num_experts
        pinned = {*asked, *self._guessed}
        room = max(1, self.cache.capacity // 4) if self._most_guesses is None else self._most_guesses
        for page, _ in guesses:
            # what this set asks for itself is on its way, in this wave or in a later one.
            if page in self.cache.slot_of or page in asked:
                continue
            if room == 0:
                return
            evicted = self.cache.prefetch(page, pinned)
            if evicted is None:
                return
            room -= 1
            pinned.add(page)
            self._guessed[page] = self._sets + self._turns.sets_until(page // experts)
            try:
                if evicted >= 0:
                    self.ledger.evictions += 1
                    self._left(evicted, -1, self.cache.slot_of[page])
                self.link.fetch([page], [self.cache.slot_of[page]], is_demand=False)
            except BaseException:
                # nothing brings it now.
                del self._guessed[page]
                self.cache.drop(page)
                raise
            self.ledger.prefetches += 1

    def _call_off(self, seen: Observation) -> None:
        """Guesses that this set or an earlier one did not confirm are stale: what has not arrived makes room."""
        stale = [page for page, due in self._guessed.items() if due <= self._sets and page not in seen.pages]
        for page in stale:
            self._judge(page)

    def _judge(self, page: int) -> None:
        """A guess that is not here yet, or could not be read, goes; one that has arrived stays."""
        if self.link.call_off(page):
            self._forget(page)
        else:
            self._settle(page)

    def _use(self, page: int) -> None:
        if page in self._guessed or page in self.ledger.unused:
            self._settle(page)
            self._proved[page] = self.ledger.used(page)

    def _settle(self, page: int) -> None:
        """A guess has arrived: from now on it is a resident like others, used or not."""
        if page in self._guessed:
            del self._guessed[page]
            self.ledger.guessed(page, self.link.bytes_of(page))

    def _left(self, page: int, token: int, slot: int | None) -> None:
        """A page gave up a slot, into which nothing has been brought since; None if that cannot be said."""
        is_whole = slot is not None
        if page in self._guessed:
            is_whole = not self.link.call_off(page) and is_whole
            self._settle(page)
        written = self.link.leave(page, slot) if slot is not None and is_whole else 0
        self.ledger.written_bytes += written
        moved = written + self.ledger.wasted(page)
        if self.note is not None:
            self.note(Happening(self.link.now(), token, page, "evict", moved, 0.0))

    def _forget(self, page: int) -> None:
        """Take an expert that is not complete out of the cache."""
        if page in self._guessed:
            self._settle(page)
        self.ledger.wasted(page)
        self.cache.drop(page)

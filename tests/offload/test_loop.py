"""The loop over a simulated link: what is noted, what is counted, what an error leaves behind."""

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.offload.cache import ExpertCache
from workbench.offload.loop import Happening, OffloadLoop
from workbench.offload.policies.lru import LRU
from workbench.offload.policy import CacheShape
from workbench.offload.prefetcher import Guess, Observation, Prefetcher
from workbench.offload.replay.simulated_link import SimulatedLink
from workbench.offload.tiers.cost import LinkCost

SHAPE = CacheShape(num_layers=2, num_experts=4, capacity=3, top_k=2)
COST = LinkCost(bytes_per_second=8)


class Scripted(Prefetcher):
    """Guesses what it is told, set after set."""

    def __init__(self, guesses: Sequence[Sequence[int] | None]):
        super().__init__(SHAPE)
        self.guesses = list(guesses)

    def predict(self, seen: Observation) -> list[Guess]:
        pages = self.guesses.pop(0) if self.guesses else ()
        if pages is None:
            raise RuntimeError("the prefetcher broke")
        return [(page, 1.0) for page in pages]


def loop_of(capacity: int = 3, guesses=None, *, most: int | None = 4) -> tuple[OffloadLoop, list[Happening]]:
    events: list[Happening] = []
    link = SimulatedLink(COST, 8, chunk_bytes=2)
    prefetcher = None if guesses is None else Scripted(guesses)
    loop = OffloadLoop(ExpertCache(capacity, LRU(SHAPE)), link, prefetcher, note=events.append, most_guesses=most)
    return loop, events


def serve(loop: OffloadLoop, layer: int, *pages: int, seconds: float = 0.0) -> list[list[int]]:
    seen = Observation(layer, sorted(pages), [1] * len(pages), lambda: ())
    waves = [wave.pages for wave in loop.serve(seen, [10 + page for page in sorted(pages)])]
    loop.link.spend(seconds)
    return waves


def told(events: list[Happening]) -> list[tuple[str, int, int, int]]:
    found = [(event.kind, event.page, event.token, event.bytes) for event in events]
    events.clear()
    return found


def check_books(loop: OffloadLoop) -> None:
    loop.take_stock()
    assert loop.ledger.moved_bytes == loop.link.moved_bytes
    assert loop.ledger.waiting_bytes == sum(loop.ledger.unused.values())


class Early(Scripted):
    """Guesses before a pass only."""

    def begin_pass(self, token_ids: Sequence[int]) -> list[Guess]:
        return [(page, 1.0) for page in token_ids]


def early() -> tuple[OffloadLoop, list[Happening]]:
    events: list[Happening] = []
    link = SimulatedLink(COST, 8, chunk_bytes=2)
    return OffloadLoop(ExpertCache(3, LRU(SHAPE)), link, Early([]), note=events.append, most_guesses=4), events


def test_what_is_guessed_before_a_pass_is_there_when_its_first_layer_asks():
    loop, events = early()
    loop.begin_pass([1])
    loop.link.spend(1.0)
    serve(loop, 0, 1, 2)
    assert told(events) == [("prefetch", 1, 11, 8), ("miss", 2, 12, 8)]
    loop.begin_pass([3])
    serve(loop, 1, 5)
    told(events)
    # 3 is of layer 0, whose turn comes next.
    loop.link.spend(1.0)
    serve(loop, 0, 3)
    assert told(events)[-1] == ("prefetch", 3, 13, 8)
    check_books(loop)


def test_a_guess_before_a_pass_that_nobody_confirms_is_called_off():
    loop, _ = early()
    serve(loop, 0, 0)
    serve(loop, 1, 4)
    loop.begin_pass([1])
    assert 1 in loop.cache.slot_of
    # at once: nothing of it but the chunk under way has been brought.
    serve(loop, 0, 0)
    assert 1 not in loop.cache.slot_of
    assert loop.ledger.prefetches == 1 and loop.ledger.wasted_bytes <= 2
    check_books(loop)


def test_misses_are_read_and_say_for_whom():
    loop, events = loop_of(2)
    serve(loop, 0, 1, 2)
    assert told(events) == [("miss", 1, 11, 8), ("miss", 2, 12, 8)]
    serve(loop, 1, 5, 6)
    assert told(events) == [("evict", 1, 15, 0), ("evict", 2, 16, 0), ("miss", 5, 15, 8), ("miss", 6, 16, 8)]
    serve(loop, 1, 5)
    assert told(events) == [("hit", 5, 15, 0)]
    ledger = loop.ledger
    assert (ledger.hits, ledger.misses, ledger.evictions, ledger.demand_bytes) == (1, 4, 2, 32)
    assert ledger.stall_seconds == 4.0
    check_books(loop)


def test_a_guess_that_comes_in_time_is_a_hit_that_was_guessed():
    loop, events = loop_of(guesses=[[5]])
    serve(loop, 0, 1, seconds=3.0)
    serve(loop, 1, 5)
    assert told(events) == [("miss", 1, 11, 8), ("prefetch", 5, 15, 8)]
    assert (loop.ledger.hits, loop.ledger.late, loop.ledger.useful_bytes) == (1, 0, 8)
    check_books(loop)


def test_a_guess_that_comes_too_late_is_waited_for():
    loop, events = loop_of(guesses=[[5]])
    serve(loop, 0, 1, seconds=0.5)
    before = loop.link.now()
    serve(loop, 1, 5)
    assert told(events)[1] == ("prefetch_late", 5, 15, 8)
    assert loop.link.now() - before == 0.5
    assert (loop.ledger.hits, loop.ledger.late, loop.ledger.useful_bytes) == (0, 1, 8)
    check_books(loop)


def test_a_guess_that_is_not_confirmed_is_called_off_if_it_is_not_there():
    loop, _ = loop_of(guesses=[[5]])
    serve(loop, 0, 1, seconds=0.5)
    serve(loop, 1, 6)
    assert 5 not in loop.cache.slot_of
    assert loop.ledger.wasted_bytes == 4
    check_books(loop)


def test_a_guess_that_has_arrived_stays_until_it_must_leave():
    loop, events = loop_of(guesses=[[5]])
    serve(loop, 0, 1, seconds=3.0)
    serve(loop, 1, 6)
    assert 5 in loop.cache.slot_of and loop.ledger.waiting_bytes == 8
    told(events)
    serve(loop, 0, 2, 3)
    assert ("evict", 5, 13, 8) in told(events)
    assert loop.ledger.wasted_bytes == 8
    check_books(loop)


def test_a_guess_for_a_layer_of_a_chain_waits_until_the_layer_has_asked_for_the_last_time():
    loop, _ = loop_of(4, [[], [], [], [], [5]])
    for layer, page in ((0, 1), (0, 1), (1, 6), (1, 6), (0, 1)):
        serve(loop, layer, page)
    # nothing takes time, so 5 is on its way all along: once more layer 0, then twice layer 1.
    for layer, page, is_held in ((0, 1, True), (1, 6, True), (1, 6, False)):
        serve(loop, layer, page)
        assert (5 in loop.cache.slot_of) == is_held
    check_books(loop)


def test_guesses_are_bounded_and_skip_what_is_there_or_asked_for():
    loop, _ = loop_of(3, [[1, 2, 5, 6, 7]], most=None)
    serve(loop, 0, 1)
    assert loop.ledger.prefetches == 1 and 2 in loop.cache.slot_of
    loop, _ = loop_of(3, [[1, 5, 6, 7]])
    serve(loop, 0, 1)
    assert sorted(loop.cache.slot_of) == [1, 5, 6]
    loop, _ = loop_of(2, [[5, 2, 0]])
    serve(loop, 0, 1, 2, 3)
    assert loop.ledger.prefetches == 0


def test_an_interrupt_while_waiting_leaves_nothing_that_is_not_there(monkeypatch):
    loop, _ = loop_of(3, [[7], []])
    serve(loop, 0, 0)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(SimulatedLink, "wait", lambda self, pages: (_ for _ in ()).throw(KeyboardInterrupt))
        serve(loop, 1, 4, 7)
    assert sorted(loop.cache.slot_of) == [0]
    check_books(loop)
    assert serve(loop, 1, 4, 7) == [[4, 7]]
    assert loop.ledger.misses == 3
    check_books(loop)


def test_a_prefetcher_that_breaks_leaves_nothing_that_is_not_there():
    loop, _ = loop_of(3, [None])
    with pytest.raises(RuntimeError, match="the prefetcher broke"):
        serve(loop, 0, 1, 2)
    assert loop.cache.slot_of == {}
    check_books(loop)
    serve(loop, 0, 1, 2)
    assert loop.ledger.misses == 2
    check_books(loop)


def test_a_smaller_cache_keeps_only_guesses_that_have_arrived():
    loop, _ = loop_of(3, [[5, 6]])
    serve(loop, 0, 1, seconds=1.5)
    loop.resize(2)
    assert sorted(loop.cache.slot_of) in ([1, 5], [5])
    assert loop.ledger.wasted_bytes == 4
    check_books(loop)


@settings(max_examples=30)
@given(data=st.data())
def test_no_byte_is_lost_whatever_happens(data):
    pages = st.sets(st.integers(0, 3), min_size=1, max_size=4)
    count = data.draw(st.integers(1, 20))
    guesses = data.draw(st.lists(st.lists(st.integers(0, 7), max_size=4), min_size=count, max_size=count))
    loop, events = loop_of(data.draw(st.integers(1, 8)), guesses)
    asked = 0
    for number in range(count):
        layer = number % 2
        wanted = [4 * layer + page for page in data.draw(pages)]
        served = serve(loop, layer, *wanted, seconds=data.draw(st.sampled_from([0.0, 0.3, 2.0])))
        assert sorted(page for wave in served for page in wave) == sorted(wanted)
        asked += len(wanted)
        if data.draw(st.booleans()):
            check_books(loop)
        if data.draw(st.integers(0, 9)) == 0:
            loop.resize(data.draw(st.integers(1, 8)))
    ledger = loop.ledger
    assert ledger.requests == asked == sum(event.kind != "evict" for event in events)
    assert ledger.evictions == sum(event.kind == "evict" for event in events)
    assert sum(event.bytes for event in events if event.kind == "miss") == ledger.demand_bytes
    check_books(loop)

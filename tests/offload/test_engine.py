"""The engine: what it refuses, what can be changed between tokens, and the budget that it keeps."""

import sys
import threading
from pathlib import Path

import pytest
import torch

from workbench.core import Spec
from workbench.model.weights import load
from workbench.offload.config import OffloadConfig
from workbench.offload.engine import OffloadEngine
from workbench.offload.prefetcher import Observation

CPU = torch.device("cpu")
BLOCK = 24 * 1024


@pytest.fixture
def store(checkpoint, opened):
    """The converted experts of the tiny model."""
    return opened(checkpoint(), budget="100%").engine.store


@pytest.fixture
def engine_of():
    """Makes engines over a store, and ends their threads."""
    engines = []

    def make(store, *, top_k=2, **options) -> OffloadEngine:
        engines.append(OffloadEngine(store, OffloadConfig(**options), top_k=top_k, device=CPU))
        return engines[-1]

    yield make
    for engine in engines:
        engine.loop.link.close()


def test_a_budget_below_one_tokens_experts_states_the_least_that_works(store, engine_of):
    message = (
        r"one token asks for 2 experts of 24.0 KiB in a layer, so the budget must be at least 48.0 KiB \(49152 B\) "
        r"beside what else it is for, got 48.0 KiB \(49151 B\)"
    )
    with pytest.raises(ValueError, match=message):
        engine_of(store, budget=2 * BLOCK - 1)
    engine = engine_of(store, budget="48KiB")
    assert engine.capacity == 2


def test_odd_blocks_need_room_for_buffers_too(checkpoint, opened, engine_of):
    odd = opened(checkpoint(expert_width=20), budget="60%").engine
    stride, size = odd.store.shape.stride, odd.store.shape.num_bytes
    assert odd.resident_bytes == 2 * stride
    with pytest.raises(ValueError, match="the budget must be at least"):
        engine_of(odd.store, budget=2 * size + 2 * stride - 1)
    least = engine_of(odd.store, budget=2 * size + 2 * stride)
    assert least.capacity == 2


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"policy": Spec("lruu")}, LookupError, r"has no 'lruu' \(did you mean 'lru'\?\)"),
        ({"prefetch": Spec("markof")}, LookupError, r"has no 'markof' \(did you mean 'markov'\?\)"),
        ({"policy": Spec("lru", {"size": 3})}, ValueError, "lru has no argument 'size'"),
        ({"policy": Spec("min")}, ValueError, "min looks into the future, which a running model does not have"),
        ({"policy": Spec("min_bypass")}, ValueError, "min_bypass looks into the future"),
        ({"prefetch": Spec("oracle")}, ValueError, "oracle looks into the future"),
    ],
)
def test_what_cannot_run_is_refused_and_leaves_no_thread(store, engine_of, options, error, message):
    before = threading.active_count()
    with pytest.raises(error, match=message):
        engine_of(store, **options)
    assert threading.active_count() == before


def test_every_setting_can_change_between_tokens(checkpoint, opened, steps, resident, assert_same, check_books):
    folder = checkpoint()
    offloaded = opened(folder, budget="50%", prefetch=Spec("markov"))
    engine = offloaded.engine
    changes = [
        lambda: engine.set_capacity(3),
        lambda: engine.set_policy(Spec("lfu")),
        lambda: engine.set_capacity(16),
        lambda: engine.set_prefetcher(Spec("next_layer")),
        lambda: engine.share_budget(5 * BLOCK),
        lambda: engine.set_prefetcher(None),
        lambda: engine.set_policy(Spec("marking")),
        lambda: engine.set_capacity(2),
    ]
    steps = type(steps)(new_tokens=len(changes) + 1)

    def change(done, step):
        if step < len(changes):
            changes[step]()
        check_books(engine)

    assert_same(steps(offloaded.model, after=change), steps(load(folder)))
    assert (str(engine.policy), engine.prefetcher, engine.capacity) == ("marking", None, 2)
    assert "marking" in engine._repr_html_()


def test_refused_changes_change_nothing(checkpoint, opened, steps, resident, assert_same):
    folder = checkpoint()
    engine = (offloaded := opened(folder, budget="50%")).engine
    with pytest.raises(
        ValueError, match="one token asks for 2 experts of a layer, and there are 16 slots; got room for 1"
    ):
        engine.set_capacity(1)
    with pytest.raises(ValueError, match=r"must be at least 48.0 KiB .* beside what else it is for, got 24.0 KiB"):
        engine.share_budget(7 * BLOCK)
    with pytest.raises(LookupError, match="has no 'nobody'"):
        engine.set_policy(Spec("nobody"))
    with pytest.raises(ValueError, match="looks into the future"):
        engine.set_prefetcher(Spec("oracle"))
    assert (engine.capacity, str(engine.policy), engine.prefetcher) == (8, "lru", None)
    assert_same(steps(offloaded.model), resident(folder))


def test_a_new_policy_knows_the_new_capacity(checkpoint, opened):
    engine = opened(checkpoint(), budget="50%").engine
    engine.set_capacity(5)
    engine.set_policy(Spec("predicted_locality"))
    assert engine.loop.cache.policy.shape.capacity == engine.shape.capacity == 5


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_smaller_capacity_gives_memory_back_to_the_system(make_store, engine_of):
    def held() -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(("RssAnon", "RssShmem")))

    store = make_store(layers=1, experts=8, floats=1 << 20)
    engine = engine_of(store, top_k=1, budget="100%")
    before = held()

    def ask(*pages: int) -> None:
        for _ in engine.serve(Observation(0, pages, [1] * len(pages), lambda: ()), [0] * len(pages)):
            pass

    ask(*range(8))
    assert held() - before > 90 << 20
    engine.set_capacity(2)
    # who sat in a slot that is gone has left, too.
    assert engine.resident_bytes <= 2 * store.shape.num_bytes
    assert held() - before < 30 << 20
    ask(*range(8))
    assert held() - before < 30 << 20


def test_a_guess_that_failed_is_not_taken_for_resident_when_the_cache_shrinks(
    checkpoint, opened, steps, resident, disk, check_books, assert_same
):
    folder = checkpoint()
    engine = (offloaded := opened(folder, budget="50%")).engine
    disk.is_broken = True
    engine.loop.cache.prefetch(3, frozenset())
    engine.loop._guessed[3] = 1
    engine.loop.link.fetch([3], [engine.loop.cache.slot_of[3]], is_demand=False)
    engine.set_capacity(7)
    disk.is_broken = False
    assert 3 not in engine.loop.cache.slot_of
    assert_same(steps(offloaded.model), resident(folder))
    check_books(engine)


def test_events_say_what_happened_to_whom(checkpoint, opened, steps):
    offloaded = opened(checkpoint(), budget="50%")
    engine, events = offloaded.engine, []
    steps(offloaded.model, [[5, 6, 7]], after=lambda done, step: events.extend(engine.drain(step)))
    asked = [event for event in events if event.kind != "evict"]
    assert len(asked) == engine.ledger.requests
    assert {event.step for event in events} == {0, 1, 2, 3}
    assert sum(event.bytes for event in asked) == engine.ledger.demand_bytes
    # a prompt of three tokens, then one token at a time.
    assert {event.token for event in asked if event.step == 0} <= {0, 1, 2}
    assert {event.token for event in asked if event.step == 2} == {4}
    assert engine.drain() == []
    engine.restart_tokens()
    steps(offloaded.model, [[5]])
    assert {event.token for event in engine.drain()} <= {-1, 0, 1, 2, 3}


def test_residency_is_where_the_cache_says(checkpoint, opened, steps):
    offloaded = opened(checkpoint(), budget="50%")
    assert (offloaded.engine.residency() == 2).all()
    steps(offloaded.model)
    tier = offloaded.engine.residency()
    assert tier.shape == (2, 8)
    assert sorted((tier.flatten() == 1).nonzero()[0].tolist()) == sorted(offloaded.engine.loop.cache.slot_of)


def test_nothing_can_be_asked_of_a_closed_engine(checkpoint, opened, steps):
    offloaded = opened(checkpoint(), budget="50%")
    offloaded.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("workbench reader")]
    with pytest.raises(ValueError, match="the reading threads have ended"):
        steps(offloaded.model)

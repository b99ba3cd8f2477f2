"""Three tiers on a simulated clock: worked by hand, and what the live engine did."""

import random

import pytest
import torch

from workbench.core import Spec
from workbench.offload.config import OffloadConfig
from workbench.offload.engine import OffloadEngine
from workbench.offload.policies.lru import LRU
from workbench.offload.policy import CacheShape
from workbench.offload.prefetcher import Observation
from workbench.offload.replay.scene import Scene, replay
from workbench.offload.replay.simulated_tiers import SimulatedTiers
from workbench.offload.requests import Requests
from workbench.offload.tiers.cost import LinkCost
from workbench.offload.tiers.host_tier import HostTier

# A block of 100 bytes takes 10 s from disk and 2 s between host and device.
DISK, COPY = LinkCost(bytes_per_second=10), LinkCost(bytes_per_second=50)


def tiers(host: int = 2, **how) -> SimulatedTiers:
    tier = HostTier(host, LRU(CacheShape(num_layers=1, num_experts=9, capacity=host, top_k=1)), **how)
    return SimulatedTiers(tier, disk=DISK, copy=COPY, block_bytes=100)


def exchange(link: SimulatedTiers, page: int, gone: int | None) -> float:
    """Bring a page into slot 0 and let another one go; the stall."""
    if gone is not None:
        assert link.leave(gone, 0) == 100
    link.fetch([page], [0], is_demand=True)
    return link.wait([page])[page]


def test_an_expert_comes_from_the_host_after_the_one_that_goes_down():
    link = tiers()
    assert exchange(link, 3, None) == 10
    # the disk does not wait for 3 to go down, which takes 2 s beside it.
    assert exchange(link, 5, 3) == 10
    # 5 goes down first, then 3 comes up: one channel for both.
    assert exchange(link, 3, 5) == 4
    assert link.now() == 24 and set(link.host.slot_of) == {5}
    ways = link.traffic()
    assert {name: way.num_bytes for name, way in ways.items()} == {
        "disk to device": 200,
        "host to device": 100,
        "device to host": 200,
    }
    assert (ways["disk to device"].seconds, ways["device to host"].seconds) == (20, 4)
    assert link.moved_bytes == 500 and link.bytes_of(3) == 100


def test_guesses_move_on_both_channels_while_something_computes():
    link = tiers()
    for page, gone in ((3, None), (4, 3), (5, 4)):
        exchange(link, page, gone)
    began = link.now()
    link.fetch([3, 7], [1, 2], is_demand=False)
    assert not link.is_here(3) and not link.is_here(7)
    link.spend(3)
    assert link.is_here(3) and not link.is_here(7)
    assert link.wait([3, 7]) == {3: 0, 7: 7}
    assert link.now() == began + 10 and set(link.host.slot_of) == {4}


def test_a_guess_that_is_called_off_is_still_in_the_host():
    link = tiers()
    exchange(link, 3, None)
    exchange(link, 5, 3)
    # the channel is busy with a demand, so the guess has not begun.
    link.fetch([3], [1], is_demand=False)
    assert link.call_off(3) and 3 in link.host.slot_of
    assert exchange(link, 3, 5) == 4


def live(store, sets: list[list[int]], **options) -> OffloadEngine:
    engine = OffloadEngine(store, OffloadConfig(**options), top_k=2, device=torch.device("cpu"))
    for pages in sets:
        for _ in engine.serve(Observation(0, pages, [1] * len(pages), lambda: ()), [0] * len(pages)):
            pass
    engine.loop.link.settle()
    engine.loop.link.close()
    return engine


@pytest.mark.parametrize("inclusive", [False, True])
@pytest.mark.parametrize("host_policy", ["lru", "lfu", "marking", "least_stale"])
@pytest.mark.parametrize("host", [1, 3, 8])
def test_the_live_engine_moves_what_the_replay_says(make_store, host, host_policy, inclusive):
    store = make_store(layers=1, experts=12)
    size = store.shape.num_bytes
    assert size == store.shape.stride
    draw = random.Random(host)
    sets = [sorted(draw.sample(range(12), draw.choice([1, 2, 2, 3, 5]))) for _ in range(120)]
    engine = live(
        store,
        sets,
        budget=3 * size,
        host_budget=(host + 1) * size,
        host_policy=Spec(host_policy),
        inclusive=inclusive,
    )
    scene = Scene(block_bytes=size, host_capacity=host, host_policy=Spec(host_policy), inclusive=inclusive)
    requests = Requests.of_sets(sets, num_experts=12)
    result = replay(requests, policy=Spec("lru"), capacity=3, scene=scene)
    ours, theirs = result.ledger, engine.ledger
    assert (ours.hits, ours.misses, ours.evictions) == (theirs.hits, theirs.misses, theirs.evictions)
    assert ours.written_bytes == theirs.written_bytes > 0
    moved = {name: way.num_bytes for name, way in result.traffic.items()}
    assert moved == {name: way.num_bytes for name, way in engine.traffic.items()}
    assert ours.moved_bytes == sum(moved.values()) and moved["host to device"] > 0


def test_a_larger_host_never_reads_more_from_disk():
    draw = random.Random(0)
    sets = [sorted(draw.sample(range(12), 2)) for _ in range(400)]
    read = []
    for host in range(10):
        scene = Scene(block_bytes=100, cost=DISK, host_cost=COPY, host_capacity=host)
        result = replay(Requests.of_sets(sets, num_experts=12), policy=Spec("lru"), capacity=3, scene=scene)
        read.append(result.traffic["disk to device"].num_bytes if host else result.ledger.moved_bytes)
    assert read == sorted(read, reverse=True) and read[-1] == 12 * 100
    # all that differs is where a miss comes from.
    assert result.ledger.misses * 100 == read[0]


def test_a_tier_that_cannot_be_is_refused():
    requests = Requests.of_sets([[0, 1], [1, 2]])
    with pytest.raises(ValueError, match="min looks into the future"):
        replay(requests, policy=Spec("lru"), capacity=2, scene=Scene(host_capacity=1, host_policy=Spec("min")))

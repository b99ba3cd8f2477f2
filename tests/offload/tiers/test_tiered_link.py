"""Three tiers: who goes where, that nothing is torn, and that every byte is counted."""

import random
import threading
import time

import pytest
import torch

from workbench.offload.policies.lru import LRU
from workbench.offload.policy import CacheShape
from workbench.offload.store.expert_store import DamagedExpert
from workbench.offload.tiers.host_tier import HostTier
from workbench.offload.tiers.pool import SlotPool
from workbench.offload.tiers.tiered_link import TieredLink

CPU = torch.device("cpu")


@pytest.fixture
def make_link(make_store):
    links = []

    def make(*, host: int = 2, slots: int = 4, floats: int = 1024, threads: int = 1, **how) -> TieredLink:
        store = make_store(layers=2, experts=8, floats=floats)
        tier = HostTier(host, LRU(CacheShape(num_layers=2, num_experts=8, capacity=host, top_k=1)), **how)
        pools = SlotPool(store.shape, slots, CPU), SlotPool(store.shape, host + 1, CPU, partner=CPU)
        links.append(TieredLink(store, *pools, tier, threads=threads))
        return links[-1]

    yield make
    for link in links:
        link.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("workbench")]


@pytest.fixture
def slow(monkeypatch):
    """Copies take so many seconds, a part of an expert at a time."""
    seconds = [0.0]
    real = SlotPool._fill

    def fill(pool, pieces):
        for piece in pieces:
            time.sleep(seconds[0])
            real(pool, [piece])

    monkeypatch.setattr(SlotPool, "_fill", fill)
    return lambda taken: seconds.__setitem__(0, taken)


def holds(pool: SlotPool, slot: int) -> list[float]:
    return [tensor[slot].unique().tolist() for tensor in pool.tensors]


def bring(link: TieredLink, *pairs: tuple[int, int], is_demand: bool = True) -> None:
    pages, slots = zip(*pairs, strict=True)
    link.fetch(pages, slots, is_demand=is_demand)
    link.wait(pages)


def check(link: TieredLink) -> None:
    """What the host says it holds, it holds."""
    link.settle()
    for page, slot in link.host.slot_of.items():
        assert holds(link.host_pool, slot) == [[page], [-page]]


@pytest.mark.parametrize("floats", [1024, 1000])
def test_an_expert_goes_down_and_comes_up_again_without_the_disk(make_link, disk, floats):
    link = make_link(floats=floats)
    size, stride = link.store.shape.num_bytes, link.store.shape.stride
    bring(link, (3, 0))
    assert link.leave(3, 0) == size
    bring(link, (5, 0))
    check(link)
    assert dict(link.host.slot_of) == {3: 0} and holds(link.pool, 0) == [[5], [-5]]
    reads = len(disk.reads)
    assert link.leave(5, 0) == size
    bring(link, (3, 0))
    check(link)
    assert len(disk.reads) == reads
    assert dict(link.host.slot_of) == {5: 1} and holds(link.pool, 0) == [[3], [-3]]
    assert link.bytes_of(3) == size and link.bytes_of(5) == stride
    ways = {name: way.num_bytes for name, way in link.traffic().items()}
    assert ways == {"disk to device": 2 * stride, "host to device": size, "device to host": 2 * size}
    assert all(way.seconds > 0 for way in link.traffic().values())
    assert link.moved_bytes == sum(ways.values())


def test_inclusive_tiers_save_an_expert_once(make_link):
    link = make_link(is_inclusive=True)
    size = link.store.shape.num_bytes
    bring(link, (3, 0))
    assert link.leave(3, 0) == size
    bring(link, (5, 0))
    assert link.leave(5, 0) == size
    bring(link, (3, 0))
    assert set(link.host.slot_of) == {3, 5}
    assert link.leave(3, 0) == 0
    bring(link, (5, 0))
    check(link)
    assert link.traffic()["device to host"].num_bytes == 2 * size
    assert holds(link.pool, 0) == [[5], [-5]]


@pytest.mark.parametrize("floats", [1024, 1000])
@pytest.mark.parametrize("source", ["disk", "host"])
@pytest.mark.parametrize("is_demand", [True, False])
def test_a_slot_that_is_filled_again_at_once_tears_nobody(make_link, slow, floats, source, is_demand):
    link = make_link(floats=floats, threads=2)
    bring(link, (3, 0), (6, 1))
    if source == "host":
        link.leave(6, 1)
        bring(link, (7, 1))
    slow(0.05)
    link.leave(3, 0)
    link.fetch([6], [0], is_demand=is_demand)
    # the slot is still being copied from, half of it is old.
    link.wait([6])
    assert holds(link.pool, 0) == [[6], [-6]]
    check(link)
    assert 3 in link.host.slot_of and 6 not in link.host.slot_of


def test_an_expert_that_is_asked_for_while_it_goes_down_comes_up_whole(make_link, slow):
    link = make_link()
    bring(link, (3, 0))
    slow(0.05)
    link.leave(3, 0)
    link.fetch([5], [0], is_demand=True)
    link.fetch([3], [1], is_demand=True)
    link.wait([5, 3])
    assert holds(link.pool, 0) == [[5], [-5]] and holds(link.pool, 1) == [[3], [-3]]
    assert dict(link.host.slot_of) == {}


def test_a_guess_from_the_host_stays_there_until_it_has_come(make_link, slow):
    link = make_link()
    bring(link, (3, 0))
    link.leave(3, 0)
    bring(link, (5, 0))
    link.settle()
    slow(0.05)
    link.fetch([3], [1], is_demand=False)
    assert not link.is_here(3) and 3 in link.host.slot_of
    assert link.wait([3])[3] > 0.02
    assert link.is_here(3) and 3 not in link.host.slot_of
    # it has gone up; now it goes down again.
    link.leave(3, 1)
    bring(link, (6, 1))
    check(link)
    assert 3 in link.host.slot_of


def test_a_guess_that_is_called_off_is_still_in_the_host(make_link, slow):
    link = make_link(host=3)
    bring(link, (3, 0), (4, 1))
    link.leave(3, 0)
    link.leave(4, 1)
    bring(link, (5, 0), (6, 1))
    link.settle()
    slow(0.05)
    link.fetch([3, 4], [2, 3], is_demand=False)
    assert link.call_off(4) and link.bytes_of(4) == 0
    assert 4 in link.host.slot_of
    link.wait([3])
    assert not link.call_off(3)
    bring(link, (4, 3))
    assert holds(link.pool, 3) == [[4], [-4]] and holds(link.pool, 2) == [[3], [-3]]


def test_a_guess_that_leaves_as_soon_as_it_has_come_costs_no_copy(make_link):
    link = make_link()
    bring(link, (3, 0))
    link.leave(3, 0)
    bring(link, (5, 0))
    link.fetch([3], [1], is_demand=False)
    link._mover.settle()
    assert not link.call_off(3)
    assert link.leave(3, 1) == 0
    bring(link, (6, 1))
    check(link)
    assert 3 in link.host.slot_of


def test_a_fetch_that_never_came_saves_with_the_next_one(make_link):
    link = make_link()
    bring(link, (3, 0))
    # the caller was interrupted between the two calls, and asks for the same expert again.
    link.leave(3, 0)
    bring(link, (3, 1))
    assert holds(link.pool, 1) == [[3], [-3]] and not link.host.slot_of


def test_experts_that_are_held_stay_until_they_are_let_go(make_link, slow):
    link = make_link(host=2)
    bring(link, (3, 0), (4, 1))
    slow(0.02)
    link.leave(3, 0)
    link.leave(4, 1)
    link.fetch([5, 6], [0, 1], is_demand=True)
    held = link.hold([3, 4, 5])
    # one place must stay for who comes down, and 5 is not in the host.
    assert held == {3: 0}
    assert holds(link.host_pool, held[3]) == [[3], [-3]]
    link.wait([5, 6])
    link.leave(5, 0)
    bring(link, (7, 0))
    assert set(link.host.slot_of) == {3, 5}
    link.let_go(held)
    link.leave(6, 1)
    bring(link, (8, 1))
    assert set(link.host.slot_of) == {5, 6}


def test_a_disk_that_fails_leaves_the_host_right(make_link, disk):
    link = make_link()
    bring(link, (3, 0))
    disk.faults = ["flip"] * 2
    link.leave(3, 0)
    link.fetch([5], [0], is_demand=True)
    with pytest.raises(DamagedExpert, match="expert 5 of layer 0"):
        link.wait([5])
    check(link)
    assert set(link.host.slot_of) == {3}
    bring(link, (3, 0))
    assert holds(link.pool, 0) == [[3], [-3]]


@pytest.mark.parametrize("what", ["save", "bring"])
@pytest.mark.parametrize("is_demand", [True, False])
def test_an_interrupt_while_copies_are_queued_leaves_nobody_where_he_is_not(make_link, monkeypatch, what, is_demand):
    link = make_link()
    bring(link, (3, 0), (4, 1))
    link.leave(4, 1)
    bring(link, (5, 1))

    def interrupted(*args, **words):
        raise KeyboardInterrupt

    monkeypatch.setattr(link._mover, what, interrupted)
    link.leave(3, 0)
    with pytest.raises(KeyboardInterrupt):
        link.fetch([4], [0], is_demand=is_demand)
    monkeypatch.undo()
    check(link)
    assert (3 in link.host.slot_of) == (what == "bring")
    # whom nobody holds any more leaves in his turn.
    for page, gone in ((6, 5), (7, 6), (8, 7)):
        link.leave(gone, 1)
        bring(link, (page, 1))
    check(link)
    assert set(link.host.slot_of) == {6, 7}


def test_nothing_can_be_asked_of_a_closed_link(make_link):
    link = make_link()
    bring(link, (3, 0))
    link.leave(3, 0)
    link.close()
    with pytest.raises(ValueError, match="thread has ended, so no expert can be brought; open the model again"):
        link.fetch([4], [0], is_demand=True)


@pytest.mark.parametrize("is_inclusive", [False, True])
@pytest.mark.parametrize(("host", "threads", "floats"), [(1, 1, 1024), (2, 3, 1000), (5, 2, 1024)])
def test_whatever_is_asked_for_comes_whole_and_every_byte_is_promised(
    make_link, slow, disk, is_inclusive, host, threads, floats
):
    link = make_link(host=host, threads=threads, floats=floats, is_inclusive=is_inclusive)
    slow(0.0003)
    draw, on_device, promised = random.Random(host), {}, 0
    disk.seconds = 0.0005
    for _ in range(150):
        slots = draw.sample(range(4), 2)
        pages = draw.sample([page for page in range(16) if page not in on_device.values()], 2)
        for slot in slots:
            if slot in on_device:
                promised += link.leave(on_device.pop(slot), slot)
        is_demand = draw.random() < 0.6
        link.fetch(pages, slots, is_demand=is_demand)
        for page, slot in zip(pages, slots, strict=True):
            if is_demand or draw.random() < 0.5 or not link.call_off(page):
                link.wait([page])
                assert holds(link.pool, slot) == [[page], [-page]]
                on_device[slot] = page
        if draw.random() < 0.3:
            check(link)
            assert is_inclusive or not set(on_device.values()) & set(link.host.slot_of)
        assert len(link.host.slot_of) <= host
    check(link)
    assert link.traffic()["device to host"].num_bytes == promised > 0
    assert link.traffic()["host to device"].num_bytes > 0

"""The reading threads: order, chunks, second attempts, and an end."""

import threading
import time

import pytest
import torch

from workbench.offload.store.expert_store import DamagedExpert
from workbench.offload.tiers.disk_link import DiskLink
from workbench.offload.tiers.pool import SlotPool

# Of 512 KiB in two chunks, and of 256 KiB in one.
LARGE = 64 * 1024
CHUNK = 256 * 1024
BLOCK = 3 * CHUNK


@pytest.fixture
def make_link(make_store):
    links = []

    def make(*, floats: int = LARGE, threads: int = 1, slots: int = 8) -> DiskLink:
        store = make_store(floats=floats)
        links.append(DiskLink(store, SlotPool(store.shape, slots, torch.device("cpu")), threads=threads))
        return links[-1]

    yield make
    for link in links:
        link.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("workbench reader")]


def holds(link: DiskLink, slot: int) -> list[float]:
    return [tensor[slot].unique().item() for tensor in link.pool.tensors]


def until(condition) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.001)


@pytest.mark.parametrize("floats", [LARGE, 1000])
@pytest.mark.parametrize("is_demand", [True, False])
def test_an_expert_comes_into_its_slot(make_link, floats, is_demand):
    link = make_link(floats=floats, threads=2)
    link.fetch([5, 2], [0, 3], is_demand=is_demand)
    stalls = link.wait([5, 2])
    assert holds(link, 0) == [5, -5] and holds(link, 3) == [2, -2]
    assert link.is_here(5) and set(stalls) == {5, 2} and min(stalls.values()) >= 0
    assert link.moved_bytes == 2 * link.store.shape.stride == link.bytes_of(5) + link.bytes_of(2)
    assert link.wait([5, 7]) == {}
    assert link.buffer_bytes == (0 if floats == LARGE else 2 * link.store.shape.stride)


def test_demands_go_before_guesses_in_the_order_in_which_they_came(make_link, disk):
    link = make_link()
    disk.seconds = 0.02
    link.fetch([0, 1], [0, 1], is_demand=False)
    until(lambda: disk.reads)
    link.fetch([3, 2], [3, 2], is_demand=True)
    link.wait([3, 2])
    served = [offset // BLOCK for offset, _ in disk.reads]
    # one chunk of the first guess at most, then both demands, then the guesses.
    assert served[served.index(3) :][:2] == [3, 2]
    assert served.index(3) <= 2
    link.settle()
    assert holds(link, 0) == [0, 0] and holds(link, 1) == [1, -1]
    assert link.moved_bytes == 4 * BLOCK


def test_a_guess_goes_on_where_it_stopped(make_link, disk):
    link = make_link()
    disk.seconds = 0.01
    link.fetch([1], [0], is_demand=False)
    until(lambda: link.bytes_of(1) >= CHUNK)
    link.fetch([2], [1], is_demand=True)
    link.wait([2])
    link.settle()
    of_guess = [(offset - BLOCK, size) for offset, size in disk.reads if BLOCK <= offset < 2 * BLOCK]
    assert of_guess == [(0, CHUNK), (CHUNK, CHUNK), (2 * CHUNK, CHUNK)]
    assert holds(link, 0) == [1, -1]


def test_a_guess_that_is_waited_for_becomes_a_demand(make_link, disk):
    link = make_link()
    disk.seconds = 0.01
    link.fetch([0, 1, 2], [0, 1, 2], is_demand=False)
    link.wait([2])
    assert link.is_here(2) and holds(link, 2) == [2, -2]
    link.settle()
    served = [offset // BLOCK for offset, _ in disk.reads]
    assert (2 * BLOCK, BLOCK) in disk.reads
    assert served.index(2) < served.index(1)


@pytest.mark.parametrize("floats", [LARGE, LARGE + 1])
def test_a_guess_that_is_called_off_leaves_its_slot_alone(make_link, disk, floats):
    link = make_link(floats=floats)
    stride = link.store.shape.stride
    disk.seconds = 0.02
    link.fetch([1, 2], [0, 1], is_demand=False)
    until(lambda: link.bytes_of(1) >= CHUNK)
    # the second first: it would begin when the first stops.
    assert link.call_off(2) and link.call_off(1)
    assert link.bytes_of(1) < stride and link.bytes_of(2) == 0
    link.fetch([3], [0], is_demand=True)
    link.wait([3])
    assert holds(link, 0) == [3, -3]
    assert link.moved_bytes == link.bytes_of(1) + stride
    assert not link.call_off(3) and not link.call_off(7)


@pytest.mark.parametrize("fault", ["error", "short", "flip"])
@pytest.mark.parametrize("is_demand", [True, False])
def test_one_bad_read_is_tried_again(make_link, disk, fault, is_demand):
    link = make_link()
    disk.faults = [fault]
    link.fetch([4], [1], is_demand=is_demand)
    link.wait([4])
    assert holds(link, 1) == [4, -4]
    # only what arrived counts: a flipped block did, and so does what a guess had read before.
    assert link.moved_bytes == link.bytes_of(4) == (2 * BLOCK if fault == "flip" else BLOCK)


@pytest.mark.parametrize(
    ("fault", "error", "message"),
    [
        ("error", OSError, "Input/output error"),
        ("short", OSError, rf"experts.bin gave {BLOCK - 4096} of {BLOCK} bytes at {4 * BLOCK}; it was cut short"),
        ("flip", DamagedExpert, "expert 0 of layer 1 in .* is damaged"),
    ],
)
def test_a_fault_that_stays_is_an_error_for_who_waits(make_link, disk, fault, error, message):
    link = make_link()
    # two tries for each; who is told of hears of the first.
    disk.faults = [fault] * 4
    link.fetch([4, 5], [1, 2], is_demand=True)
    with pytest.raises(error, match=message):
        link.wait([4, 5])
    link.fetch([4], [1], is_demand=True)
    link.wait([4])
    assert holds(link, 1) == [4, -4]


def test_who_waits_reads_what_no_thread_has_begun(make_link, monkeypatch):
    link, may_go_on, begun = make_link(threads=1), threading.Event(), []

    def read(page, into, start=0, *, real=link.store.read):
        begun.append(page)
        if page == 4:
            assert may_go_on.wait(20)
        real(page, into, start)

    monkeypatch.setattr(link.store, "read", read)
    link.fetch([4], [1], is_demand=True)
    until(lambda: begun == [4])
    link.fetch([5], [2], is_demand=True)
    link.wait([5])
    assert holds(link, 2) == [5, -5] and not link.is_here(4)
    may_go_on.set()
    link.wait([4])
    assert holds(link, 1) == [4, -4]


def test_a_guess_that_failed_has_another_chance_when_it_is_asked_for(make_link, disk):
    link = make_link()
    disk.faults = ["error"] * 2
    link.fetch([4], [1], is_demand=False)
    link.settle()
    assert not link.is_here(4)
    link.wait([4])
    assert holds(link, 1) == [4, -4]


def test_a_guess_that_failed_can_be_called_off(make_link, disk):
    link = make_link()
    disk.faults = ["error"] * 2
    link.fetch([4], [1], is_demand=False)
    link.settle()
    assert link.call_off(4)


def test_closing_drops_what_has_not_begun(make_link, disk):
    link = make_link()
    disk.seconds = 0.02
    link.fetch(range(8), range(8), is_demand=False)
    until(lambda: disk.reads)
    link.close()
    assert len(disk.reads) <= 2
    with pytest.raises(
        ValueError, match=r"the reading threads have ended, so no expert can be brought; open the model"
    ):
        link.fetch([1], [1], is_demand=True)
    link.settle()
    link.close()


def test_who_waits_hears_that_it_was_closed(make_link, disk):
    link = make_link()
    disk.seconds = 0.05
    link.fetch(range(8), range(8), is_demand=True)
    heard = []

    def wait() -> None:
        try:
            link.wait(range(8))
        except ValueError as error:
            heard.append(str(error))

    waiter = threading.Thread(target=wait)
    waiter.start()
    until(lambda: disk.reads)
    link.close()
    waiter.join(timeout=20)
    assert not waiter.is_alive() and "reading threads have ended" in heard[0]


@pytest.mark.parametrize("floats", [LARGE, 1000])
def test_many_threads_get_what_they_asked_for(make_link, disk, floats):
    link = make_link(floats=floats, threads=4, slots=8)
    disk.seconds = 0.0005
    wrong = []

    def ask(page: int) -> None:
        generator = torch.Generator().manual_seed(page)
        for _ in range(25):
            is_demand, is_kept = torch.rand(2, generator=generator).lt(0.6).tolist()
            link.fetch([page], [page], is_demand=is_demand)
            if is_kept or not link.call_off(page):
                link.wait([page])
                wrong.extend(value for value in holds(link, page) if abs(value) != page)
            link.pool.tensors[0][page].fill_(99.0)

    askers = [threading.Thread(target=ask, args=(page,)) for page in range(8)]
    for asker in askers:
        asker.start()
    for asker in askers:
        asker.join(timeout=60)
    assert not any(asker.is_alive() for asker in askers)
    assert wrong == []

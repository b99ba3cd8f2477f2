"""The copying thread: its order, what waits for what, and its end."""

import threading
import time

import pytest
import torch

from workbench.offload.store.blocks import BlockShape, Part
from workbench.offload.tiers.mover import Mover
from workbench.offload.tiers.pool import SlotPool

CPU = torch.device("cpu")
SHAPE = BlockShape((Part((3, 5), "float32"), Part((7,), "bfloat16")))


class Gate:
    """Lets copies through one by one, and writes down which came."""

    def __init__(self, monkeypatch):
        self.real, self.seen, self.is_open = SlotPool.copy, [], threading.Event()
        monkeypatch.setattr(SlotPool, "copy", lambda *args: self.copy(*args))

    def copy(self, pool: SlotPool, slot: int, other: SlotPool, other_slot: int) -> None:
        self.seen.append((other_slot, slot))
        assert self.is_open.wait(20)
        self.real(pool, slot, other, other_slot)


@pytest.fixture
def gate(monkeypatch) -> Gate:
    return Gate(monkeypatch)


@pytest.fixture
def mover():
    made = Mover(SlotPool(SHAPE, 4, CPU), SlotPool(SHAPE, 4, CPU))
    for pool, sign in ((made.device, 1), (made.host, -1)):
        for slot in range(4):
            for tensor in pool.tensors:
                tensor[slot] = sign * (slot + 1)
    yield made
    made.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "workbench mover"]


def held(pool: SlotPool) -> list[float]:
    values = [[tensor[slot].unique().item() for tensor in pool.tensors] for slot in range(pool.capacity)]
    assert all(first == second for first, second in values)
    return [first for first, _ in values]


def begun(gate: Gate, count: int) -> None:
    deadline = time.monotonic() + 20
    while len(gate.seen) < count:
        assert time.monotonic() < deadline, "it never began"
        time.sleep(0.001)


def test_two_experts_change_places_through_a_third_slot(mover):
    mover.save(0, 2)
    mover.wait(mover.bring(1, 0, is_demand=True))
    assert held(mover.device) == [-2, 2, 3, 4]
    assert held(mover.host) == [-1, -2, 1, -4]
    up, down = mover.traffic()["host to device"], mover.traffic()["device to host"]
    assert up.num_bytes == down.num_bytes == SHAPE.num_bytes == 74
    assert mover.moved_bytes == 148 and up.seconds > 0 and down.seconds > 0


def test_what_must_be_goes_in_its_order_and_before_what_is_guessed(mover, gate):
    first = mover.bring(0, 0, is_demand=True)
    begun(gate, 1)
    guess = mover.bring(1, 1, is_demand=False)
    mover.save(3, 3)
    second = mover.bring(2, 2, is_demand=True)
    gate.is_open.set()
    for move in (first, second, guess):
        mover.wait(move)
    assert gate.seen == [(0, 0), (3, 3), (2, 2), (1, 1)]


def test_a_guess_that_is_waited_for_is_due(mover, gate):
    mover.bring(0, 0, is_demand=True)
    begun(gate, 1)
    mover.bring(1, 1, is_demand=False)
    wanted = mover.bring(2, 2, is_demand=False)
    waiter = threading.Thread(target=mover.wait, args=(wanted,))
    waiter.start()
    deadline = time.monotonic() + 20
    while wanted not in mover._due:
        assert time.monotonic() < deadline
    gate.is_open.set()
    waiter.join(20)
    mover.settle()
    assert gate.seen == [(0, 0), (2, 2), (1, 1)]


def test_a_copy_that_has_not_begun_can_be_called_off(mover, gate):
    running = mover.bring(0, 0, is_demand=True)
    begun(gate, 1)
    due, guess = mover.bring(1, 1, is_demand=True), mover.bring(2, 2, is_demand=False)
    assert mover.call_off(due) and mover.call_off(guess)
    gate.is_open.set()
    assert not mover.call_off(running)
    mover.settle()
    assert held(mover.device) == [-1, 2, 3, 4]
    assert mover.moved_bytes == SHAPE.num_bytes


@pytest.mark.parametrize("wait", ["wait_until_saved", "wait_until_filled"])
def test_who_needs_a_slot_waits_for_the_copy_out_of_it_or_into_it(mover, gate, wait):
    mover.save(1, 2)
    seen = []
    waiter = threading.Thread(
        target=lambda: (
            mover.wait_until_saved(1) if wait == "wait_until_saved" else mover.wait_until_filled(2),
            seen.append(held(mover.host)[2]),
        )
    )
    waiter.start()
    # of other slots nothing is to be waited for.
    mover.wait_until_saved(2)
    mover.wait_until_filled(1)
    time.sleep(0.02)
    assert seen == []
    gate.is_open.set()
    waiter.join(20)
    assert seen == [2]


def test_a_fault_of_the_device_is_an_error_for_everybody(mover, monkeypatch):
    def broken(*args):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(SlotPool, "copy", broken)
    move = mover.bring(0, 0, is_demand=True)
    with pytest.raises(RuntimeError, match="experts could not be copied between host and device") as error:
        mover.wait(move)
    assert "illegal memory access" in str(error.value.__cause__)
    with pytest.raises(RuntimeError, match="could not be copied"):
        mover.save(0, 0)
    assert mover.call_off(move) and mover.moved_bytes == 0


def test_closing_drops_what_has_not_begun(mover, gate):
    mover.bring(0, 0, is_demand=True)
    begun(gate, 1)
    never = mover.bring(1, 1, is_demand=True)
    gate.is_open.set()
    mover.close()
    assert len(gate.seen) <= 2
    with pytest.raises(ValueError, match="the copying thread has ended, so no expert can be brought; open the model"):
        mover.save(1, 1)
    assert never.is_done == (len(gate.seen) == 2)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_experts_go_to_a_gpu_and_back_through_pinned_memory():
    gpu = torch.device("cuda")
    device, host = SlotPool(SHAPE, 2, gpu), SlotPool(SHAPE, 3, CPU, partner=gpu)
    assert all(tensor.is_pinned() for tensor in host.tensors)
    mover = Mover(device, host)
    for tensor, size in zip(host.tensors, (15, 7), strict=True):
        tensor[0] = torch.arange(size).view(tensor[0].shape)
    mover.bring(0, 1, is_demand=True)
    mover.save(1, 2)
    mover.settle()
    mover.close()
    for below, above in zip(host.tensors, device.tensors, strict=True):
        assert torch.equal(below[0], above[1].cpu()) and torch.equal(below[0], below[2])

"""Memory is used again by its thread, and by nobody while something refers to it."""

import gc
import threading

import pytest
import torch
from workbench_kernels import workspace
from workbench_kernels.workspace import buffer, recycled

CPU = torch.device("cpu")
LARGE = (1024, 1024)


@pytest.fixture(autouse=True)
def a_pool_of_its_own(monkeypatch):
    monkeypatch.setattr(workspace, "_POOL", workspace._Pool())
    monkeypatch.setattr(workspace, "_KEPT", workspace._Kept())


def test_a_buffer_keeps_its_place_until_it_must_grow():
    first = buffer("a", (4, 5), torch.float32, CPU)
    assert buffer("a", (3, 2), torch.float32, CPU).data_ptr() == first.data_ptr()
    assert buffer("b", (4, 5), torch.float32, CPU).data_ptr() != first.data_ptr()
    assert buffer("a", (4, 5), torch.float64, CPU).data_ptr() != first.data_ptr()
    assert buffer("a", (9, 9), torch.float32, CPU).shape == (9, 9)
    assert buffer("a", (0, 3), torch.float32, CPU).shape == (0, 3)


def test_another_thread_has_buffers_of_its_own():
    places = [buffer("a", (8,), torch.float32, CPU).data_ptr()]
    thread = threading.Thread(target=lambda: places.append(buffer("a", (8,), torch.float32, CPU).data_ptr()))
    thread.start()
    thread.join()
    assert places[0] != places[1]


def test_another_device_gets_new_memory():
    assert buffer("a", (2, 3), torch.float32, torch.device("meta")).shape == (2, 3)
    assert recycled((2, 3), torch.float32, torch.device("meta")).device.type == "meta"


def test_a_buffer_made_under_inference_mode_serves_training():
    with torch.inference_mode():
        buffer("a", (4,), torch.float32, CPU), recycled(LARGE, torch.float32, CPU)
    assert not buffer("a", (4,), torch.float32, CPU).is_inference()
    assert not recycled(LARGE, torch.float32, CPU).is_inference()


def test_memory_comes_back_when_nothing_refers_to_it():
    first = recycled(LARGE, torch.float32, CPU)
    place, view = first.data_ptr(), first[3]
    del first
    gc.collect()
    second = recycled(LARGE, torch.float32, CPU)
    assert second.data_ptr() != place
    view.fill_(1)
    del view
    assert recycled(LARGE, torch.float32, CPU).data_ptr() == place


def test_what_a_graph_saved_is_not_taken_from_it():
    x = torch.ones(LARGE, requires_grad=True)
    held = recycled(LARGE, torch.float32, CPU)
    held.fill_(3)
    out = (x * held).sum()
    del held
    recycled(LARGE, torch.float32, CPU).fill_(7)
    assert torch.equal(torch.autograd.grad(out, x)[0], torch.full(LARGE, 3.0))


def test_a_similar_size_is_served_and_a_much_smaller_one_is_not():
    place = recycled(LARGE, torch.float32, CPU).data_ptr()
    assert recycled((900, 1024), torch.float32, CPU).data_ptr() == place
    small = recycled((512, 1024), torch.float32, CPU)
    assert small.data_ptr() != place


def test_memory_stays_within_a_half_more_than_what_was_in_use_at_once():
    pool = workspace._POOL
    for size in (1024, 1400, 1900, 2600, 600):
        recycled((size, 1024), torch.float32, CPU)
    assert pool.used_bytes == 0
    assert pool.peak_bytes == 2600 * 1024 * 4
    assert sum(block.numel() for block in pool.idle) <= 1.5 * pool.peak_bytes
    # the oldest went first
    assert 1024 * 1024 * 4 not in [block.numel() for block in pool.idle]


def test_what_a_step_needs_in_turn_is_there_in_the_next_one():
    sizes, places = (2600, 700, 500), []
    for _ in range(3):
        places.append([recycled((size, 1024), torch.float32, CPU).data_ptr() for size in sizes])
    assert places[0] == places[1] == places[2]


def test_the_block_that_fits_best_is_taken():
    large, small = (recycled((size, 1024), torch.float32, CPU) for size in (1200, 1024))
    place = small.data_ptr()
    del large, small
    assert recycled(LARGE, torch.float32, CPU).data_ptr() == place


def test_small_tensors_are_left_to_the_allocator():
    recycled((8, 8), torch.float32, CPU)
    assert workspace._POOL.peak_bytes == 0

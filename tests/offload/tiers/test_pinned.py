"""Host memory: aligned, given back in whole pages, pinned where it lies."""

import mmap

import pytest
import torch

from workbench.offload.tiers.pinned import HostMemory


def test_a_view_shows_the_bytes_that_it_names():
    memory = HostMemory(3 * mmap.PAGESIZE)
    memory.view(5, 8)[:] = b"abc"
    assert bytes(memory.view(4, 9)) == b"\0abc\0"
    assert len(memory.view()) == 3 * mmap.PAGESIZE
    assert torch.frombuffer(memory.map, dtype=torch.uint8).data_ptr() % mmap.PAGESIZE == 0


def test_only_whole_pages_are_given_back():
    page = mmap.PAGESIZE
    memory = HostMemory(3 * page)
    memory.view()[:] = b"x" * (3 * page)
    memory.give_back(1, 3 * page - 1)
    assert bytes(memory.view()).count(b"x") == 2 * page
    assert bytes(memory.view(page, 2 * page)) == bytes(page)
    memory.give_back(1, page - 1)
    assert bytes(memory.view(0, page)) == b"x" * page


class FakeRuntime:
    """What registers memory, without a GPU."""

    def __init__(self, fault: int):
        self.fault, self.calls = fault, []

    def cudaHostRegister(self, address: int, size: int, flags: int) -> int:
        self.calls.append(("pin", address, size))
        return self.fault

    def cudaHostUnregister(self, address: int) -> int:
        self.calls.append(("unpin", address))
        return 0


def test_pinned_memory_is_registered_to_the_byte_let_go_once_and_never_given_back(monkeypatch):
    runtime = FakeRuntime(0)
    monkeypatch.setattr(torch.cuda, "cudart", lambda: runtime)
    memory = HostMemory(2 * mmap.PAGESIZE, is_pinned=True)
    address = torch.frombuffer(memory.map, dtype=torch.uint8).data_ptr()
    memory.view()[:] = b"x" * (2 * mmap.PAGESIZE)
    memory.give_back(0, 2 * mmap.PAGESIZE)
    assert bytes(memory.view()).count(b"x") == 2 * mmap.PAGESIZE
    del memory
    assert runtime.calls == [("pin", address, 2 * mmap.PAGESIZE), ("unpin", address)]


def test_memory_that_cannot_be_pinned_is_an_error(monkeypatch):
    monkeypatch.setattr(torch.cuda, "cudart", lambda: FakeRuntime(2))
    with pytest.raises(RuntimeError, match=r"could not pin 4096 B of host memory \(error 2\); take a smaller host bud"):
        HostMemory(4096, is_pinned=True)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_cuda_takes_registered_memory_for_pinned():
    memory = HostMemory(1 << 20, is_pinned=True)
    assert torch.frombuffer(memory.map, dtype=torch.uint8).is_pinned()
    assert not torch.frombuffer(HostMemory(1 << 20).map, dtype=torch.uint8).is_pinned()

"""Slots: one stacked tensor per part, filled from blocks, whose memory can be given back."""

import sys
from pathlib import Path

import pytest
import torch

from workbench.offload.store.blocks import BlockShape, Part
from workbench.offload.tiers.pool import SlotPool

CPU = torch.device("cpu")
ODD = BlockShape((Part((2, 3), "float32"), Part((5,), "bfloat16")))


def anonymous_bytes() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(("RssAnon", "RssShmem")))


def test_a_block_fills_one_slot_and_no_other():
    pool = SlotPool(ODD, 3, CPU)
    tensors = [torch.arange(6.0).view(2, 3), torch.arange(5).bfloat16()]
    pool.put(1, memoryview(ODD.bytes_of(tensors)))
    assert [tuple(tensor.shape) for tensor in pool.tensors] == [(3, 2, 3), (3, 5)]
    for whole, one in zip(pool.tensors, tensors, strict=True):
        assert torch.equal(whole[1], one)
        assert whole[0].count_nonzero() == whole[2].count_nonzero() == 0
    assert pool.num_bytes == 3 * 34


def test_the_memory_of_a_slot_is_what_the_tensors_show():
    pool = SlotPool(ODD, 2, CPU)
    first, second = pool.memory(1)
    first[:4] = torch.tensor([7.0]).numpy().tobytes()
    assert (len(first), len(second)) == (24, 10)
    assert pool.tensors[0][1, 0, 0] == 7
    assert pool.tensors[0][0].count_nonzero() == 0


def test_a_pool_may_be_larger_than_the_memory_of_the_machine():
    pool = SlotPool(BlockShape((Part((1 << 20,), "float32"),)), 1 << 20, CPU)
    pool.tensors[0][-1, :3] = 1.0
    assert pool.num_bytes == 1 << 42
    assert pool.tensors[0][-1].sum() == 3


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_what_is_given_back_is_gone_from_the_process():
    pool = SlotPool(BlockShape((Part((1 << 20,), "float32"),)), 16, CPU)
    before = anonymous_bytes()
    pool.tensors[0].fill_(3.0)
    assert anonymous_bytes() - before > 60 << 20
    pool.give_back(range(4, 16))
    assert anonymous_bytes() - before < 20 << 20
    # really gone, and not only out of sight.
    assert pool.tensors[0][:4].unique().tolist() == [3.0]
    assert pool.tensors[0][4:].count_nonzero() == 0


def test_slots_that_share_a_page_are_not_given_back_together():
    pool = SlotPool(BlockShape((Part((1500,), "float32"),)), 4, CPU)
    pool.tensors[0].fill_(2.0)
    pool.give_back([1, 2])
    pool.give_back([])
    assert (pool.tensors[0][0] == 2).all() and (pool.tensors[0][3] == 2).all()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_a_slot_on_a_gpu_is_filled_when_the_call_returns():
    pool = SlotPool(ODD, 2, torch.device("cuda"))
    tensors = [torch.arange(6.0).view(2, 3), torch.arange(5).bfloat16()]
    pool.put(1, memoryview(ODD.bytes_of(tensors)))
    assert all(torch.equal(whole[1].cpu(), one) for whole, one in zip(pool.tensors, tensors, strict=True))
    pool.give_back([0])

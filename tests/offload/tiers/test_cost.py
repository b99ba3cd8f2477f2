"""Measured links as numbers."""

import json

import pytest
import torch

from workbench.offload.tiers.cost import LinkCost, measure_link
from workbench.offload.tiers.pool import SlotPool


def test_a_move_takes_a_start_and_its_length():
    cost = LinkCost(start_seconds=0.5, bytes_per_second=100)
    assert cost.seconds(50) == 1.0
    assert LinkCost(bytes_per_second=float("inf")).seconds(1e9) == 0
    assert json.loads(cost.to_json())["start_seconds"] == 0.5


@pytest.mark.parametrize("values", [{"bytes_per_second": 0}, {"bytes_per_second": 1, "start_seconds": -1}])
def test_a_link_that_cannot_be_is_refused(values):
    with pytest.raises(ValueError, match="a link needs a speed above 0 and a start of 0 or more, got"):
        LinkCost(**values)


def test_noise_is_said():
    assert "noisy" not in str(LinkCost(bytes_per_second=2048, spread=1.9, block_bytes=1024))
    noisy = LinkCost(bytes_per_second=2048, spread=2.5, block_bytes=1024)
    assert str(noisy) == "2.0 KiB/s in blocks of 1.0 KiB, spread 2.50, noisy"
    assert "(noisy)" in noisy._repr_html_()


@pytest.mark.parametrize("threads", [1, 2])
def test_the_speed_is_that_of_the_reads(make_store, disk, threads):
    store = make_store()
    disk.seconds = 0.02
    pool = SlotPool(store.shape, 4, torch.device("cpu"))
    cost = measure_link(store, pool, threads=threads, rounds=3)
    stride = store.shape.stride
    # a read takes 20 ms or somewhat more, and so many go on at once: who waits reads, too.
    assert 0.2 * threads * stride / 0.02 < cost.bytes_per_second <= (threads + 1) * stride / 0.02
    assert cost.block_bytes == stride and cost.spread >= 1
    assert len(disk.reads) == 4 * 4
    assert f"3 rounds of 4 random experts from {store.folder.name}" in cost.source

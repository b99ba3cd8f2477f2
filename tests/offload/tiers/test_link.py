"""A link of two tiers has nothing to do when an expert leaves: the disk has it."""

from workbench.offload.replay.simulated_link import SimulatedLink
from workbench.offload.tiers.cost import LinkCost
from workbench.offload.tiers.link import Traffic


def test_nothing_is_written_back_to_the_disk():
    link = SimulatedLink(LinkCost(bytes_per_second=1), 8)
    link.fetch([3], [0], is_demand=True)
    link.wait([3])
    assert not link.hears_leaving and link.leave(3, 0) == 0
    assert link.moved_bytes == 8


def test_traffic_is_bytes_and_seconds():
    assert Traffic(3, 0.5) == (3, 0.5) == (Traffic(3, 0.5).num_bytes, Traffic(3, 0.5).seconds)

"""The simulated link, worked by hand: one channel, chunks, demands first."""

import pytest

from workbench.offload.replay.simulated_link import SimulatedLink
from workbench.offload.tiers.cost import LinkCost


@pytest.fixture
def link() -> SimulatedLink:
    # a block of 8 bytes takes 4 s, a chunk of 2 bytes 1 s.
    return SimulatedLink(LinkCost(bytes_per_second=2), 8, chunk_bytes=2)


def test_demands_come_one_after_the_other(link):
    link.fetch([1, 2], [0, 1], is_demand=True)
    assert not link.is_here(1)
    assert link.wait([1, 2]) == {1: 4.0, 2: 4.0}
    assert (link.now(), link.moved_bytes, link.bytes_of(1)) == (8.0, 16, 8)
    assert link.is_here(1) and link.wait([1]) == {1: 0.0}


def test_computation_hides_a_guess(link):
    link.fetch([1], [0], is_demand=False)
    link.spend(3.0)
    assert not link.is_here(1)
    assert link.bytes_of(1) == 6
    link.spend(2.0)
    assert link.is_here(1)
    assert link.wait([1]) == {1: 0.0}
    assert link.now() == 5.0


def test_a_demand_waits_for_the_chunk_under_way_and_the_guess_goes_on_after_it(link):
    link.fetch([1], [0], is_demand=False)
    link.spend(1.5)
    link.fetch([2], [1], is_demand=True)
    # the second chunk ends at 2, the block at 6.
    assert link.wait([2]) == {2: 4.5}
    assert link.bytes_of(1) == 4
    # two more chunks, from 6 on.
    assert link.wait([1]) == {1: 2.0}
    assert (link.now(), link.moved_bytes) == (8.0, 16)


def test_a_guess_does_not_move_before_it_was_made(link):
    link.spend(10.0)
    link.fetch([1], [0], is_demand=False)
    assert not link.is_here(1)
    link.spend(1.0)
    assert link.bytes_of(1) in (0, 2)
    assert link.wait([1]) == {1: 3.0}


def test_a_guess_that_is_called_off_moves_no_further(link):
    link.fetch([1, 2], [0, 1], is_demand=False)
    link.spend(2.0)
    assert link.call_off(1)
    link.spend(3.0)
    assert link.bytes_of(1) == 4
    assert link.bytes_of(2) == 6
    assert not link.call_off(1) and not link.call_off(9)
    assert link.moved_bytes == 10


def test_a_link_that_takes_no_time_has_brought_everything_at_once():
    link = SimulatedLink(LinkCost(bytes_per_second=float("inf")), 8)
    link.fetch([1, 2], [0, 1], is_demand=False)
    assert link.is_here(1) and link.is_here(2)
    assert (link.now(), link.moved_bytes) == (0.0, 16)


def test_a_start_is_paid_for_every_chunk_of_a_guess_and_once_for_a_demand():
    link = SimulatedLink(LinkCost(start_seconds=1.0, bytes_per_second=4), 8, chunk_bytes=4)
    link.fetch([1], [0], is_demand=True)
    assert link.wait([1]) == {1: 3.0}
    link.fetch([2], [0], is_demand=False)
    link.spend(10.0)
    assert link.bytes_of(2) == 8
    link.fetch([3], [1], is_demand=True)
    assert link.wait([3]) == {3: 3.0}

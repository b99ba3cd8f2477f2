"""Who lies in the host, in which slot, and who leaves."""

import pytest

from workbench.offload.policies.lru import LRU
from workbench.offload.policy import CacheShape
from workbench.offload.tiers.host_tier import HostTier


def tier(capacity: int, **how) -> HostTier:
    return HostTier(capacity, LRU(CacheShape(num_layers=1, num_experts=8, capacity=capacity, top_k=1)), **how)


def test_the_oldest_leaves_and_its_slot_is_the_last_to_be_filled_again():
    host = tier(2)
    assert [host.enter(7), host.enter(3)] == [0, 1]
    # the spare one first: what is copied out of 0 meanwhile stays whole.
    assert host.enter(5) == 2
    assert dict(host.slot_of) == {3: 1, 5: 2}
    assert host.leave(3) == 1
    assert [host.enter(6), host.enter(4)] == [0, 1]
    assert dict(host.slot_of) == {6: 0, 4: 1}


def test_a_page_that_goes_up_makes_room_below_before_another_comes_down():
    host = tier(1)
    host.enter(4)
    assert host.leave(4) == 0
    assert host.enter(9) == 1
    assert host.enter(2) == 0


def test_who_is_pinned_stays():
    host = tier(2)
    host.enter(1)
    host.enter(2)
    assert host.pin(1)
    host.enter(3)
    assert set(host.slot_of) == {1, 3}
    host.unpin(1)
    host.enter(4)
    assert set(host.slot_of) == {3, 4}


def test_the_last_place_cannot_be_pinned():
    host = tier(2)
    host.enter(1)
    # there is room beside it.
    assert host.pin(1) and host.has_room
    host.enter(2)
    assert not host.pin(2) and host.has_room
    host.enter(3)
    assert set(host.slot_of) == {1, 3}


def test_who_comes_up_leaves_unless_tiers_are_inclusive():
    for is_inclusive in (False, True):
        host = tier(2, is_inclusive=is_inclusive)
        host.enter(3)
        host.enter(5)
        assert host.source(7, is_demand=True) is None
        assert host.source(3, is_demand=True) == (0, True)
        assert set(host.slot_of) == ({3, 5} if is_inclusive else {5})
        assert host.wants(3) != is_inclusive
        # it was used last, so the other one leaves.
        host.enter(6)
        assert set(host.slot_of) == ({3, 6} if is_inclusive else {5, 6})


def test_a_guess_stays_until_it_has_come():
    host = tier(3)
    for page in (3, 5, 6):
        host.enter(page)
    assert host.source(3, is_demand=False) == (0, False)
    assert host.source(5, is_demand=False) == (1, False)
    host.enter(9)
    assert set(host.slot_of) == {3, 5, 9}
    host.collect(lambda page: page == 3)
    assert set(host.slot_of) == {5, 9}
    # the other one is called off, and may leave like all others.
    host.release(5)
    host.collect(lambda page: True)
    host.enter(1)
    host.enter(2)
    assert set(host.slot_of) == {9, 1, 2}


def test_a_guess_that_would_take_the_last_place_goes_at_once():
    host = tier(1)
    host.enter(3)
    assert host.source(3, is_demand=False) == (0, True)
    assert not host.slot_of


def test_a_guess_that_has_come_and_leaves_again_is_still_here():
    host = tier(2)
    host.enter(3)
    host.source(3, is_demand=False)
    # whom it would be held for has computed; it is on its way up all the same.
    host.unpin(3)
    host.enter(4)
    host.enter(5)
    assert 3 in host.slot_of
    assert not host.wants(3)
    host.collect(lambda page: True)
    assert 3 in host.slot_of


def test_a_tier_without_room_is_refused():
    with pytest.raises(ValueError, match="a host tier needs room for at least one expert, got 0"):
        tier(0)
    assert repr(tier(3)) == "HostTier(0 of 3 experts, LRU)"

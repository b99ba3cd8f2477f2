"""How many experts a budget holds."""

import pytest

from workbench.offload.tiers.capacity import device_capacity, host_capacity


@pytest.mark.parametrize(("budget", "expected"), [(100, 2), (144, 2), (145, 3), (10_000, 9)])
def test_what_fits_beside_the_buffers_fits(budget, expected):
    assert device_capacity(budget, 45, overhead=10, least=2, most=9, unit="experts") == expected


def test_too_small_a_budget_says_what_would_do():
    message = r"one token asks for 2 pages of 1.0 KiB in a layer, so the budget must be at least 2.0 KiB \(2058 B\)"
    with pytest.raises(ValueError, match=message + r" beside what else it is for, got 2.0 KiB \(2057 B\)"):
        device_capacity(2057, 1024, overhead=10, least=2, most=9, unit="pages")
    with pytest.raises(ValueError, match=r"got 0 B \(0 B\)"):
        device_capacity(-5, 1024, overhead=10, least=2, most=9, unit="pages")
    assert device_capacity(2058, 1024, overhead=10, least=2, most=9, unit="pages") == 2


@pytest.mark.parametrize(("budget", "expected"), [(100, 1), (144, 1), (145, 2), (10_000, 9)])
def test_one_slot_of_the_host_is_spare(budget, expected):
    assert host_capacity(budget, 45, overhead=10, most=9, unit="experts") == expected


def test_a_host_that_is_too_small_says_what_would_do():
    message = r"at least one of the experts of 1.0 KiB and a spare slot, so the host budget must be at least 2.0 KiB"
    with pytest.raises(ValueError, match=message + r" \(2048 B\), got 2.0 KiB \(2047 B\)"):
        host_capacity(2047, 1024, overhead=0, most=9, unit="experts")

"""Sums that fade."""

from math import inf

import pytest

from workbench.offload.policies._decay import FadingSums


def test_what_was_added_halves_with_the_half_life():
    sums = FadingSums(2, 4.0)
    sums.values[0] += sums.weight
    sums.advance(8)
    sums.values[1] += sums.weight
    assert [value / sums.weight for value in sums.values] == pytest.approx([0.25, 1.0])


def test_long_runs_stay_in_range_and_keep_the_order():
    sums, changed = FadingSums(2, 0.5), 0
    for step in range(5000):
        sums.values[step % 2] += sums.weight
        changed += sums.advance()
    # the weight quadruples each time: 2^512 is reached every 256 steps.
    assert changed == 5000 // 256
    # the last use is of 1: a sum of 1 + 1/16 + ..., of 0 a quarter of it, both a step ago.
    assert [value / sums.weight for value in sums.values] == pytest.approx([1 / 15, 4 / 15])


def test_an_infinite_half_life_makes_plain_sums():
    sums = FadingSums(1, inf)
    assert not any(sums.advance(1000) for _ in range(5))
    assert sums.weight == 1.0


def test_a_half_life_is_positive():
    with pytest.raises(ValueError, match="half_life must be above 0, got 0"):
        FadingSums(1, 0)

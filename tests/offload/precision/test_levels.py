"""Who gets more pages."""

from itertools import pairwise, product

import numpy as np
import pytest

from workbench.offload.precision.levels import share_levels, usage_of
from workbench.offload.requests import Requests

# Two experts that lose much and two that lose little without their second page.
LEFT = np.array([[9.0, 4.0, 1.0, 0.5], [9.0, 2.0, 1.0, 0.9], [9.0, 4.0, 1.0, 0.5], [9.0, 2.0, 1.0, 0.9]])


def test_the_page_that_takes_most_away_comes_first():
    assert share_levels(LEFT, 1) == [1, 1, 1, 1]
    assert share_levels(LEFT, 1.25) == [2, 1, 1, 1]
    assert share_levels(LEFT, 1.5) == [2, 1, 2, 1]
    assert share_levels(LEFT, 2) == [2, 2, 2, 2]
    assert share_levels(LEFT, 2.5) == [3, 2, 3, 2]
    assert share_levels(LEFT, 3) == [3, 3, 3, 3]


def test_use_counts():
    assert share_levels(LEFT, 1.5, usage=[1, 10, 1, 1]) == [2, 2, 1, 1]
    assert share_levels(LEFT, 1.75, usage=[1, 100, 1, 1]) == [2, 3, 1, 1]


def test_who_is_never_used_stays_at_the_floor():
    assert share_levels(LEFT, 3, usage=[0, 1, 0, 1]) == [1, 3, 1, 3]


@pytest.mark.parametrize(("mean", "expected"), [(1.5, [2, 2, 1, 1]), (2, [2, 2, 2, 2]), (2.25, [3, 2, 2, 2])])
def test_equal_gains_give_everybody_the_same(mean, expected):
    equal = np.tile(np.array([4.0, 3.0, 2.0, 1.0]), (4, 1))
    assert share_levels(equal, mean) == expected


def test_more_room_only_adds_pages():
    random = np.random.default_rng(0)
    left = np.sort(random.random((12, 6)), axis=1)[:, ::-1]
    usage = random.integers(0, 50, 12).tolist()
    shares = [share_levels(left, mean, usage=usage) for mean in np.linspace(1, 5, 33)]
    for one, two in pairwise(shares):
        assert all(a <= b for a, b in zip(one, two, strict=True))


def test_no_other_share_leaves_less_where_gains_fall():
    random = np.random.default_rng(1)
    # gains that fall from page to page, as those of every format do.
    gains = -np.sort(-random.random((5, 3)), axis=1)
    left = gains.sum(1, keepdims=True) - np.concatenate([np.zeros((5, 1)), gains.cumsum(1)], axis=1)
    usage = random.random(5)

    def remains(levels) -> float:
        return sum(usage[place] * left[place, level] for place, level in enumerate(levels))

    found = share_levels(left, 2, usage=usage.tolist())
    others = [levels for levels in product((1, 2, 3), repeat=5) if sum(levels) <= 10]
    assert remains(found) == pytest.approx(min(map(remains, others)))


@pytest.mark.parametrize("usage", [[1, 2, 3], [1, 2, 3, -1], [1, 2, 3, float("nan")]])
def test_numbers_that_do_not_fit_are_refused(usage):
    with pytest.raises(
        ValueError, match="usage needs one number of 0 or more for each of 4 experts, layer after layer"
    ):
        share_levels(LEFT, 2, usage=usage)


def test_use_is_counted_in_tokens():
    requests = Requests.of_sets([[0, 1], [3], [1], [2, 3]], num_layers=2, num_experts=2)
    requests.count[:] = [5, 1, 2, 1, 1, 4]
    assert usage_of(requests) == (5, 2, 1, 6)

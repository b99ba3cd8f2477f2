"""Independent sets: sizes and frequencies kept, time forgotten."""

from itertools import pairwise

import numpy as np

from workbench.analysis.independent import independent_sets


def local(sets, seed=0):
    """Pairs of 8 pages that stay for ten sets, page 7 twice as often."""
    generator = np.random.default_rng(seed)
    held = [np.sort(generator.choice(8, 2, False, [0.1] * 7 + [0.3])) for _ in range(sets // 10)]
    return np.repeat(held, 10, axis=0).astype(np.int32)


def test_sets_keep_their_sizes_and_pages_ascend():
    start = np.array([0, 2, 2, 5, 7, 10, 11])
    page = np.array([0, 1, 1, 2, 3, 0, 4, 1, 2, 4, 3], np.int32)
    drawn = independent_sets(page, start, np.zeros(6, np.int64), seed=0)
    parts = [drawn[low:high].tolist() for low, high in pairwise(start)]
    assert all(part == sorted(set(part)) for part in parts)
    # of a size that only one set has, frequencies leave no choice.
    assert parts[5] == [3]


def test_every_page_comes_as_often_within_chance():
    page = local(20_000)
    drawn = independent_sets(page.ravel(), np.arange(0, 40_001, 2), np.zeros(20_000, np.int64), seed=1)
    before, after = (np.bincount(one.ravel(), minlength=8) / 20_000 for one in (page, drawn))
    assert np.abs(before - after).max() < 4 * np.sqrt(0.25 / 20_000)


def test_a_set_says_nothing_about_the_next():
    page = local(20_000)
    drawn = independent_sets(page.ravel(), np.arange(0, 40_001, 2), np.zeros(20_000, np.int64), seed=1).reshape(-1, 2)
    rate = np.bincount(drawn.ravel(), minlength=8) / 20_000

    def shared(one):
        return (one[1:, :, None] == one[:-1, None, :]).sum() / (len(one) - 1)

    assert shared(page) > 1.8
    assert abs(shared(drawn) - (rate**2).sum()) < 0.02


def test_groups_keep_their_own_pages_and_the_seed_decides():
    page = np.concatenate([local(200), local(200, 1) + 8]).ravel()
    group = np.repeat([0, 1], 200)
    start = np.arange(0, 801, 2)
    drawn = independent_sets(page, start, group, seed=3)
    assert drawn[:400].max() < 8 <= drawn[400:].min()
    assert np.array_equal(drawn, independent_sets(page, start, group, seed=3))
    assert not np.array_equal(drawn, independent_sets(page, start, group, seed=4))


def test_a_page_of_every_set_stays_in_every_set():
    page = np.tile(np.array([[0, 3], [1, 3], [2, 3]], np.int32), (50, 1))
    drawn = independent_sets(page.ravel(), np.arange(0, 301, 2), np.zeros(150, np.int64), seed=0).reshape(-1, 2)
    assert (drawn[:, 1] == 3).all()
    assert set(drawn[:, 0].tolist()) == {0, 1, 2}

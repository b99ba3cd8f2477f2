"""LFU over a window, against a scan of all residents."""

import pytest

from workbench.offload.policies.lfu_window import WindowLFU


def scan(sets: list[list[int]], capacity: int, window: int) -> int:
    held, last, misses = set(), {}, 0
    for now, pages in enumerate(sets):
        recent = [page for one in sets[max(0, now + 1 - window) : now + 1] for page in one]
        missing = [page for page in pages if page not in held]
        for page in missing:
            if len(held) == capacity:
                held.remove(min(held - set(pages), key=lambda page: (recent.count(page), last[page], page)))
            held.add(page)
        last.update(dict.fromkeys(pages, now))
        misses += len(missing)
    return misses


@pytest.mark.parametrize("window", [1, 3, 10])
def test_it_agrees_with_a_scan_of_all_residents(replay, draw, window):
    for seed in range(5):
        sets = draw(seed, pages=9, largest=3, length=60)
        for capacity in (3, 5, 7):
            assert replay("lfu_window", sets, capacity, window=window).num_misses == scan(sets, capacity, window)


def test_a_window_over_everything_is_lfu(replay, draw):
    for seed in range(20):
        sets = draw(seed, pages=9, largest=3, length=40)
        windowed = replay("lfu_window", sets, 5, window=100)
        assert windowed.evicted == replay("lfu", sets, 5).evicted


def test_uses_outside_the_window_do_not_count(replay):
    sets = [[0], [0], [0], [1], [1], [2]]
    assert replay("lfu_window", sets, 2, window=2).evictions == {5: [0]}
    assert replay("lfu_window", sets, 2, window=6).evictions == {5: [1]}


def test_a_window_has_at_least_one_pass(shape):
    with pytest.raises(ValueError, match="window must be at least 1 pass, got 0"):
        WindowLFU(shape(2), window=0)

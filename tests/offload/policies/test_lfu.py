"""LFU, against a scan of all residents."""

import pytest

from workbench.offload.policies.lfu import LFU


def scan(sets: list[list[int]], capacity: int, *, in_cache: bool, half_life: float | None = None) -> int:
    """Misses of LFU, with every count and last use looked at for every victim."""
    uses, last, held, misses = {}, {}, set(), 0
    for now, pages in enumerate(sets):
        if half_life is not None:
            uses = {page: use * 0.5 ** (1 / half_life) for page, use in uses.items()}
        missing = [page for page in pages if page not in held]
        for page in [*(page for page in pages if page in held), *missing]:
            if page not in held and len(held) == capacity:
                gone = min(held - set(pages), key=lambda page: (round(uses[page], 9), last[page], page))
                held.remove(gone)
                if in_cache:
                    del uses[gone]
            held.add(page)
            uses[page] = uses.get(page, 0) + 1
            last[page] = now
        misses += len(missing)
    return misses


@pytest.mark.parametrize("in_cache", [False, True])
@pytest.mark.parametrize("largest", [1, 3])
def test_it_agrees_with_a_scan_of_all_residents(replay, draw, in_cache, largest):
    for seed in range(6):
        sets = draw(seed, pages=9, largest=largest, length=60)
        for capacity in (3, 5, 7):
            found = replay("lfu", sets, capacity, in_cache=in_cache).num_misses
            assert found == scan(sets, capacity, in_cache=in_cache), (seed, capacity)


def test_ageing_agrees_with_a_scan_of_all_residents(replay, draw):
    for seed in range(6):
        sets = draw(seed, pages=9, largest=3, length=60)
        found = replay("lfu", sets, 5, half_life=3.7).num_misses
        assert found == scan(sets, 5, in_cache=False, half_life=3.7), seed


def test_the_whole_history_remembers_who_left(replay):
    # 0 comes back with its second use, as many as 1 has, whose last use is older.
    sets = [[0], [1], [1], [2], [0], [3]]
    assert replay("lfu", sets, 2).evictions == {3: [0], 4: [2], 5: [1]}
    assert replay("lfu", sets, 2, in_cache=True).evictions == {3: [0], 4: [2], 5: [0]}


def test_of_equals_the_oldest_use_leaves(replay):
    assert replay("lfu", [[1], [0], [2]], 2).evictions == {2: [1]}


def test_ageing_lets_old_fame_go(replay):
    sets = [[0]] * 5 + [[1]] * 3 + [[2], [1], [2], [1]]
    assert 0 in replay("lfu", sets, 2).cache.slot_of
    assert 0 not in replay("lfu", sets, 2, half_life=1.0).cache.slot_of


def test_only_the_whole_history_is_a_stack_policy(shape):
    assert LFU(shape(2)).is_stack
    assert not LFU(shape(2), in_cache=True).is_stack


def test_a_half_life_must_be_positive(shape):
    with pytest.raises(ValueError, match="half_life must be above 0, got 0"):
        LFU(shape(2), half_life=0.0)

"""LIFO, the examples of arXiv 2303.06182's buffering."""

import pytest

from workbench.offload.cache import ExpertCache
from workbench.offload.policies.lifo import LIFO


@pytest.mark.parametrize(("slots", "experts", "lifo", "lru", "least"), [(2, 3, 9, 12, 7), (3, 4, 10, 16, 8)])
def test_a_scan_of_experts_one_after_the_other(replay, serially, slots, experts, lifo, lru, least):
    batches = [list(range(1, experts + 1))] * 4
    assert serially("lifo", batches, slots) == lifo
    assert serially("lru", batches, slots) == lru
    assert replay("min", [[page] for batch in batches for page in batch], slots).num_misses == least


def test_an_idle_expert_leaves_before_any_active_one(draw, shape):
    for seed in range(15):
        policy = LIFO(shape(4, num_layers=1, num_experts=8))
        cache = ExpertCache(4, policy)
        for pages in draw(seed, pages=8, largest=5, length=40):
            policy.observe(0, pages, [1] * len(pages))
            for page in pages:
                idle = set(cache.slot_of) - set(pages)
                gone = {page for wave in cache.step([page]) for page in wave.evicted if page >= 0}
                assert not gone or not idle or gone <= idle


def test_of_idle_experts_the_least_loaded_leaves_then_the_larger_page(shape):
    policy = LIFO(shape(4, num_layers=1, num_experts=8))
    cache = ExpertCache(4, policy)
    policy.observe(0, [0, 1, 2, 3], [5, 1, 3, 1])
    list(cache.step([0, 1, 2, 3]))
    policy.observe(0, [4, 5, 6], [1, 1, 1])
    assert [wave.evicted for wave in cache.step([4, 5, 6])] == [[3, 1, 2]]


def test_load_fades(shape):
    policy = LIFO(shape(2, num_layers=1, num_experts=4), half_life=1.0)
    for layer_load in ([0, 5], [1, 1], [1, 1], [1, 1]):
        policy.observe(0, layer_load[:1], layer_load[1:])
    for page in (0, 1):
        policy.enter(page)
    policy.observe(0, [2], [1])
    # 5 tokens four sets ago are 5/8 of a token, less than 1 + 1/2 + 1/4.
    assert policy.victim(frozenset({2})) == 0


def test_a_fade_over_thousands_of_sets_stays_in_range(shape):
    policy = LIFO(shape(2, num_layers=1, num_experts=4), half_life=0.5)
    for page in (0, 1):
        policy.enter(page)
    for number in range(2000):
        policy.observe(0, [number % 2], [1])
        policy.victim(frozenset())
    policy.observe(0, [2], [1])
    assert policy.victim(frozenset({2})) == 0


def test_a_half_life_must_be_positive(shape):
    with pytest.raises(ValueError, match="half_life must be above 0, got -1"):
        LIFO(shape(2), half_life=-1.0)

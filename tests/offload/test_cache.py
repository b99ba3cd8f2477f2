"""The cache: waves, pins, slots, and what a policy that fails leaves behind."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.core import Spec
from workbench.offload.cache import ExpertCache
from workbench.offload.policies import POLICIES
from workbench.offload.policies.lru import LRU
from workbench.offload.policy import CachePolicy, CacheShape

SHAPE = CacheShape(num_layers=2, num_experts=6, capacity=3, top_k=2)


def cache_of(capacity: int, policy: str = "lru") -> ExpertCache:
    return ExpertCache(capacity, Spec(policy).build(POLICIES, SHAPE))


def step(cache: ExpertCache, *pages: int) -> list[tuple[list[int], list[int], list[int]]]:
    return [(wave.hits, wave.misses, wave.evicted) for wave in cache.step(pages)]


def test_hits_are_judged_before_anything_enters():
    cache = cache_of(3)
    assert step(cache, 0, 1) == [([], [0, 1], [-1, -1])]
    # 2 and 3 need room for one: the oldest that is not asked for now leaves, which is 0.
    assert step(cache, 1, 2, 3) == [([1], [2, 3], [-1, 0])]
    assert step(cache, 1, 2, 3) == [([1, 2, 3], [], [])]


def test_a_set_is_never_evicted_for_itself():
    cache = cache_of(3)
    step(cache, 0, 1, 2)
    assert step(cache, 0, 4, 5) == [([0], [4, 5], [1, 2])]


def test_a_set_larger_than_the_cache_comes_in_waves():
    cache = cache_of(3)
    step(cache, 2, 4)
    waves = list(cache.step([0, 1, 2, 3, 4, 5]))
    assert [(wave.hits, wave.misses) for wave in waves] == [([2, 4], [0]), ([], [1, 3, 5])]
    assert sorted(page for wave in waves for page in wave.pages) == [0, 1, 2, 3, 4, 5]
    assert sorted(cache.slot_of) == [1, 3, 5]


def test_hits_that_fill_the_cache_make_a_wave_of_their_own():
    cache = cache_of(2)
    step(cache, 1, 3)
    assert [(wave.hits, wave.misses) for wave in cache.step([0, 1, 2, 3, 4])] == [([1, 3], []), ([], [0, 2]), ([], [4])]


def test_an_empty_set_is_an_empty_wave():
    assert step(cache_of(2)) == [([], [], [])]


@settings(max_examples=30)
@given(
    sets=st.lists(st.sets(st.integers(0, 11), max_size=7), max_size=25),
    capacity=st.integers(1, 12),
    policy=st.sampled_from(["lru", "lfu", "lifo", "marking", "least_stale"]),
)
def test_every_page_is_served_once_from_a_slot_of_its_own(sets, capacity, policy):
    cache = cache_of(capacity, policy)
    for number, pages in enumerate(sets):
        served = []
        cache.policy.observe(number % 2, sorted(pages), [1] * len(pages))
        for wave in cache.step(sorted(pages)):
            served += wave.pages
            assert all(page in cache.slot_of for page in wave.pages)
            assert len(set(cache.slot_of.values())) == len(cache.slot_of) <= capacity
            assert max(cache.slot_of.values(), default=0) < capacity
        assert sorted(served) == sorted(pages)


def test_a_guess_takes_a_free_slot_then_the_victims_then_none():
    cache = cache_of(2)
    step(cache, 0)
    assert cache.prefetch(7, {0}) == -1
    assert cache.prefetch(8, {0}) == 7
    assert cache.prefetch(9, {0, 8}) is None
    assert sorted(cache.slot_of) == [0, 8]
    cache.drop(8)
    assert cache.prefetch(9, {0}) == -1


def test_a_smaller_cache_keeps_slots_that_are_left():
    cache = cache_of(4)
    step(cache, 0, 1, 2, 3)
    assert cache.slot_of == {0: 0, 1: 1, 2: 2, 3: 3}
    step(cache, 1)
    # the oldest leave until two are left, and who sits in a slot that is gone leaves too.
    assert cache.resize(2) == [0, 2, 3]
    assert cache.slot_of == {1: 1}
    assert step(cache, 4, 5) == [([], [4, 5], [-1, 1])]
    assert cache.resize(4) == []
    step(cache, 6, 7)
    assert sorted(cache.slot_of.values()) == [0, 1, 2, 3]


@pytest.mark.parametrize("make", [lambda: cache_of(0), lambda: cache_of(2).resize(0)])
def test_no_slot_is_too_few(make):
    with pytest.raises(ValueError, match="a cache needs at least one slot, got 0"):
        make()


class Failing(LRU):
    """Fails at the page that it is told, as a policy that places one page after the other."""

    at = -1
    place = CachePolicy.place

    def enter(self, page: int) -> None:
        if page == self.at:
            raise KeyError(page)
        super().enter(page)


@pytest.mark.parametrize("held", [0, 2])
def test_a_policy_that_fails_leaves_no_page_that_nobody_reads(held):
    policy = Failing(SHAPE)
    cache = ExpertCache(3, policy)
    step(cache, *range(held))
    policy.at = 6
    with pytest.raises(KeyError):
        list(cache.step([5, 6, 7]))
    assert not {5, 6, 7} & cache.slot_of.keys()
    with pytest.raises(KeyError):
        cache.prefetch(6, frozenset())
    policy.at = -1
    assert 6 not in cache.slot_of
    assert step(cache, 5, 6, 7)[0][1] == [5, 6, 7]
    assert sorted(cache.slot_of.values()) == [0, 1, 2]


def test_it_says_how_full_it_is():
    cache = cache_of(3)
    step(cache, 0, 1)
    assert repr(cache) == "ExpertCache(2 of 3 slots, LRU)"
    assert "2 of 3" in cache._repr_html_()

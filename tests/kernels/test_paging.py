"""Caches of pages: worked numbers, every event against plain loops, and what is and what is not a stack policy."""

from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from workbench_kernels import paging, paging_counts, paging_events, stack_hits
from workbench_kernels.cpu import library
from workbench_kernels.paging_reference import paging_events_ref, stack_hits_ref

POLICIES = get_args(paging.PagingPolicy)
STACKS = get_args(paging.StackPolicy)
BELADY = [[page] for page in (1, 2, 3, 4, 1, 2, 5, 1, 2, 3, 4, 5)]
PAIRS = [[0, 1], [2, 3], [0, 1], [2, 4], [0, 3], [1, 2]]
TEXT = [[page] for page in (0, 1, 0, 2, 0, 1, 3, 0, 1, 2)]


@pytest.fixture(autouse=True)
def compiled():
    is_there, reason = library.availability()
    if not is_there:
        pytest.skip(f"no compiled kernels here: {reason}")


def arrays(sets):
    start = np.cumsum([0, *map(len, sets)], dtype=np.int64)
    return np.array([page for one in sets for page in one], np.int32), start


def misses(sets, policy, capacities, num_pages=6):
    page, start = arrays(sets)
    return (len(page) - paging_counts(page, start, capacities, num_pages=num_pages, policy=policy)[0]).tolist()


def drawn(generator, num_sets, num_pages, largest):
    sizes = generator.integers(0, largest + 1, num_sets)
    share = generator.dirichlet(np.full(num_pages, 0.7)) + 1e-9
    share /= share.sum()
    return [np.sort(generator.choice(num_pages, size, False, share)).tolist() for size in sizes]


def test_pages_one_by_one_as_worked_by_hand():
    assert misses(BELADY, "lru", [3, 4]) == [10, 8]
    assert misses(BELADY, "min", [1, 2, 3, 4]) == [12, 9, 7, 6]
    events = paging_events(*arrays(BELADY), 3, num_pages=6, policy="min")
    assert {at: page for at, page in enumerate(events.tolist()) if page >= 0} == {3: 3, 6: 4, 9: 2, 10: 3}


def test_sets_as_worked_by_hand():
    assert misses(PAIRS, "lru", [2, 3, 4, 5]) == [12, 10, 7, 5]
    assert misses(PAIRS, "min", [2, 3, 4, 5]) == [12, 8, 6, 5]


def test_the_least_used_of_all_time_leaves_and_of_equals_the_oldest():
    # page 0 was used twice before it left; when it is back it outlives page 2, which was used once.
    sets = [[0], [0], [1], [1], [1], [2], [2], [2], [0], [3]]
    assert paging_events(*arrays(sets), 2, num_pages=4, policy="lfu").tolist() == [-1, -2, -1, -2, -2, 0, -2, -2, 1, 2]


@settings(max_examples=60)
@given(seed=st.integers(0, 2**32 - 1), policy=st.sampled_from(POLICIES), largest=st.integers(1, 7))
def test_every_event_of_every_capacity_is_that_of_the_loops(seed, policy, largest):
    sets = drawn(np.random.default_rng(seed), 60, 9, largest)
    page, start = arrays(sets)
    capacities = list(range(1, 11))
    hits, evictions = paging_counts(page, start, capacities, num_pages=9, policy=policy)
    for capacity, hit, evicted in zip(capacities, hits.tolist(), evictions.tolist(), strict=True):
        expected = paging_events_ref(page, start, capacity, num_pages=9, policy=policy)
        found = paging_events(page, start, capacity, num_pages=9, policy=policy)
        assert found.tolist() == expected.tolist()
        assert (hit, evicted) == ((expected == -2).sum(), (expected >= 0).sum())


@pytest.mark.parametrize("policy", POLICIES)
def test_many_requests_agree_too(policy):
    generator = np.random.default_rng(3)
    page, start = arrays([one for _ in range(40) for one in drawn(generator, 40, 200, 12)])
    for capacity in (5, 64, 199):
        expected = paging_events_ref(page, start, capacity, num_pages=200, policy=policy)
        assert np.array_equal(paging_events(page, start, capacity, num_pages=200, policy=policy), expected)
        hits, evictions = paging_counts(page, start, [capacity, 1], num_pages=200, policy=policy)
        assert (hits[0], evictions[0]) == ((expected == -2).sum(), (expected >= 0).sum())


@pytest.mark.parametrize("policy", POLICIES)
def test_pages_one_by_one_are_one_stack_for_all_capacities(policy):
    generator = np.random.default_rng(5)
    page, start = arrays([[int(one)] for one in generator.zipf(1.4, 900) % 20])
    hits = paging_counts(page, start, range(1, 21), num_pages=20, policy=policy)[0]
    whole = np.array([0, len(start) - 1])
    reuse, _ = stack_hits(page, start, whole, num_pages=20, policy=policy)
    assert hits.tolist() == reuse[0].cumsum().tolist()


def test_for_sets_a_larger_cache_of_lru_may_miss_what_a_smaller_one_holds():
    # page 4 misses with 4 slots and so enters last; with 5 it hits, is touched first, and is gone when it is needed.
    sets = [[4], [5], [6], [7], [8], [1, 2, 3, 4], [9], [10], [4]]
    four, five = (paging_events(*arrays(sets), slots, num_pages=11, policy="lru")[-1] for slots in (4, 5))
    assert (four == -2, five == -2) == (True, False)


@pytest.mark.parametrize("policy", ["lfu", "min"])
def test_the_others_are_stack_policies_for_sets_that_fit(policy):
    generator = np.random.default_rng(11)
    for _ in range(60):
        page, start = arrays(drawn(generator, 80, 12, 4))
        hits = paging_counts(page, start, range(4, 13), num_pages=12, policy=policy)[0]
        assert (np.diff(hits) >= 0).all()
        for slots in (4, 6):
            smaller = paging_events(page, start, slots, num_pages=12, policy=policy) == -2
            larger = paging_events(page, start, slots + 1, num_pages=12, policy=policy) == -2
            assert not (smaller & ~larger).any()


def test_of_equal_counts_of_one_set_the_smaller_page_leaves_though_it_was_touched_later():
    sets = [[1], [0, 1], [0], [2]]
    # uses are 2 and 2 and the last sets differ; then 0 and 1 are used by one set, 1 as a hit and 0 as a miss.
    assert paging_events(*arrays(sets), 2, num_pages=3, policy="lfu").tolist()[-1] == 1
    assert paging_events(*arrays([[1], [0, 1], [0], [0, 1], [1], [0, 1], [2]]), 2, num_pages=3, policy="lfu")[-1] == 0


def test_the_rates_of_a_short_text_are_those_of_the_paper():
    page, start = arrays(TEXT)
    for policy, window, expected in (
        ("lru", 1, [0.1, 0.4, 0.8, 1]),
        ("min", 1, [0.1, 0.5, 0.8, 1]),
        ("window", 1, [0.1, 0.4, 0.8, 1]),
        ("window", 2, [0.1, 0.5, 0.8, 1]),
    ):
        reuse, cold = stack_hits(page, start, np.array([0, 10]), num_pages=4, policy=policy, window=window)
        assert ((reuse + cold)[0].cumsum() / 10).tolist() == pytest.approx(expected)


@settings(max_examples=100)
@given(seed=st.integers(0, 2**32 - 1), policy=st.sampled_from(STACKS), window=st.integers(1, 9))
def test_stacks_of_every_policy_are_those_of_the_loops(seed, policy, window):
    generator = np.random.default_rng(seed)
    sets = [generator.permutation(one).tolist() for one in drawn(generator, 30, 8, 4)]
    page, start = arrays(sets)
    sequence = np.array([0, 11, 11, 30])
    found = stack_hits(page, start, sequence, num_pages=8, policy=policy, window=window)
    expected = stack_hits_ref(page, start, sequence, num_pages=8, policy=policy, window=window)
    assert [part.tolist() for part in found] == [part.tolist() for part in expected]
    assert sum(part.sum() for part in found) == len(page)


def test_without_a_compiler_stacks_are_counted_by_the_loops(monkeypatch):
    expected = stack_hits(*arrays(PAIRS), np.array([0, 6]), num_pages=5, policy="lfu")
    monkeypatch.setattr(paging, "availability", lambda: (False, "no compiler"))
    found = stack_hits(*arrays(PAIRS), np.array([0, 6]), num_pages=5, policy="lfu")
    assert [part.tolist() for part in found] == [part.tolist() for part in expected]


def test_nothing_asked_is_nothing_counted():
    assert misses([], "min", [1, 2]) == [0, 0]
    assert misses([[], [3], []], "lfu", [1]) == [1]
    assert paging_counts(*arrays(PAIRS), [], num_pages=5, policy="lru")[0].tolist() == []


@pytest.mark.parametrize("sets", [[[1], [2, 1]], [[1], [1, 1]], [[1], [5, 6]], [[1], [-1, 2]]])
def test_pages_that_are_no_set_are_refused(sets):
    with pytest.raises(ValueError, match=r"must ascend and be between 0 and num_pages - 1 = 5; set 1 is \["):
        misses(sets, "lru", [2])


def test_wrong_bounds_capacities_and_names_are_refused():
    page, start = arrays(PAIRS)
    with pytest.raises(ValueError, match=r"start must rise from 0 to 12, got \[0, 2, 4, 6\]...\[10\]"):
        paging_counts(page, start[:-1], [2], num_pages=5, policy="lru")
    with pytest.raises(ValueError, match=r"at least one slot, got capacities \[2, 0\]"):
        paging_counts(page, start, [2, 0], num_pages=5, policy="lru")
    with pytest.raises(ValueError, match=r"sequence must rise from 0 to 6"):
        stack_hits(page, start, np.array([0, 7]), num_pages=5, policy="lru")
    with pytest.raises(ValueError, match="window must be at least 1, got 0"):
        stack_hits(page, start, np.array([0, 6]), num_pages=5, policy="window", window=0)
    with pytest.raises(ValueError, match=r"pages must be between 0 and num_pages - 1 = 3, got 0\.\.4"):
        stack_hits(page, start, np.array([0, 6]), num_pages=4, policy="lru")

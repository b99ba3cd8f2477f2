"""Fast counters against the general loop, event for event, and the numbers worked by hand."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.core.spec import Spec
from workbench.offload.replay import counters
from workbench.offload.replay.counters import BYPASS, FAST, FREE, HIT, cache_events, count_requests, counter_of
from workbench.offload.requests import Requests

BELADY = [[page] for page in (1, 2, 3, 4, 1, 2, 5, 1, 2, 3, 4, 5)]
PAIRS = [[0, 1], [2, 3], [0, 1], [2, 4], [0, 3], [1, 2]]


@pytest.fixture
def no_compiler(monkeypatch):
    monkeypatch.setattr(counters, "availability", lambda: (False, "no C++ compiler was found"))


def drawn(seed, num_sets=60, layers=2, experts=5, largest=4):
    """Sets of two layers in turn, whose experts are used unevenly; some sets are empty."""
    generator = np.random.default_rng(seed)
    sets = []
    for number in range(num_sets):
        share = generator.dirichlet(np.full(experts, 0.7)) + 1e-9
        chosen = generator.choice(experts, generator.integers(0, largest + 1), False, share / share.sum())
        sets.append((np.sort(chosen) + number % layers * experts).tolist())
    return Requests.of_sets(sets, num_layers=layers, num_experts=experts)


@settings(max_examples=40)
@given(seed=st.integers(0, 2**32 - 1), policy=st.sampled_from(sorted(FAST)), capacity=st.integers(1, 11))
def test_every_event_is_that_of_the_general_loop(seed, policy, capacity):
    requests = drawn(seed)
    fast = cache_events(requests, policy, capacity)
    general = cache_events(requests, policy, capacity, uses_counter=False)
    assert fast.tolist() == general.tolist()
    counts = count_requests(requests, policy, [capacity, 3])
    assert (counts.hits[0], counts.evictions[0]) == ((general == HIT).sum(), (general >= 0).sum())


@pytest.mark.parametrize("policy", sorted(FAST))
def test_all_capacities_in_one_pass_are_those_of_runs_of_their_own(policy, no_compiler):
    requests = drawn(7, num_sets=150)
    slow = count_requests(requests, policy, range(1, 12))
    assert slow.path == "general loop, which is slower: no C++ compiler was found"
    fast = [count_requests(requests, policy, [capacity]).hits[0] for capacity in range(1, 12)]
    assert slow.hits.tolist() == fast


@pytest.mark.parametrize("policy", sorted(FAST))
def test_the_counter_and_the_loop_count_alike_for_every_capacity(policy):
    requests = drawn(8, num_sets=150)
    assert counter_of(policy)[0]
    counts = count_requests(requests, policy, range(1, 12))
    assert counts.path.startswith("counter: C++ kernels with ")
    for capacity, hits, evictions in zip(counts.capacity, counts.hits, counts.evictions, strict=True):
        events = cache_events(requests, policy, int(capacity), uses_counter=False)
        assert (hits, evictions) == ((events == HIT).sum(), (events >= 0).sum())


def test_numbers_worked_by_hand():
    assert count_requests(Requests.of_sets(BELADY), "lru", [3, 4]).misses.tolist() == [10, 8]
    assert count_requests(Requests.of_sets(BELADY), "min", [1, 2, 3, 4]).misses.tolist() == [12, 9, 7, 6]
    assert count_requests(Requests.of_sets(PAIRS), "lru", [2, 3, 4, 5]).misses.tolist() == [12, 10, 7, 5]
    counts = count_requests(Requests.of_sets(PAIRS), "min", [2, 3, 4, 5])
    assert counts.misses.tolist() == [12, 8, 6, 5]
    assert counts.hit_rate.tolist() == pytest.approx([0, 1 / 3, 0.5, 7 / 12])
    assert counts.evictions.tolist() == [10, 5, 2, 0]


def test_events_say_what_left():
    requests = Requests.of_sets([[0], [1], [0], [2], [3]])
    assert cache_events(requests, "lru", 2).tolist() == [FREE, FREE, HIT, 1, 0]


def test_misses_without_a_slot_are_told_apart():
    requests = Requests.of_sets(BELADY)
    events = cache_events(requests, "min_bypass", 2)
    assert (events != HIT).sum() == 8
    assert (events == BYPASS).any()


def test_a_policy_with_arguments_takes_the_general_loop():
    assert counter_of("lfu:in_cache=True") == (False, "general loop: lfu:in_cache=True has no counter of its own")
    assert counter_of(Spec("lifo"))[1] == "general loop: lifo has no counter of its own"
    requests = drawn(3)
    whole, forgetful = (count_requests(requests, policy, [4]).hits[0] for policy in ("lfu", "lfu:in_cache=True"))
    assert whole != forgetful


def test_a_text_begins_once_however_its_sets_are_marked(monkeypatch):
    begun = []
    policy = counters.POLICIES.get("lru")
    monkeypatch.setattr(policy, "begin_sequence", lambda self: begun.append(1))
    requests = Requests.of_sets([[0], [4], [1], [5], [2], [6]], num_layers=2, num_experts=4)
    passes = replace(requests, is_first=np.array([True, True, True, True, False, False]))
    cache_events(passes, "lru", 3, uses_counter=False)
    assert len(begun) == 2


def test_progress_counts_capacities(no_compiler):
    heard = []
    count_requests(drawn(0), "lru", [1, 2, 3], on_progress=lambda done, total: heard.append((done, total)))
    assert heard == [(1, 3), (2, 3), (3, 3)]


def test_nothing_asked_has_no_rate():
    counts = count_requests(Requests.of_sets([]), "lru", [1, 2])
    assert np.isnan(counts.hit_rate).all()


def test_wrong_input_is_refused():
    with pytest.raises(LookupError, match=r"has no 'lruu' \(did you mean 'lru'"):
        count_requests(drawn(0), "lruu", [1])
    with pytest.raises(ValueError, match="capacity must be at least 1, got 0"):
        cache_events(drawn(0), "lru", 0)
    falling = replace(drawn(0), page=drawn(0).page[::-1].copy())
    with pytest.raises(ValueError, match="pages of a set must ascend"):
        count_requests(falling, "lru", [2])

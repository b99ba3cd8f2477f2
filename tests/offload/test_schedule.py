"""Batches that need few experts: the examples of the texts, all small cases, and nobody lost."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.offload.schedule import Queued, batch_by_expert, regroup


def distinct(paths: np.ndarray, chosen: list[int]) -> int:
    return int(paths[chosen].any(0).sum())


def test_two_ways_become_two_batches():
    paths = np.array([[1, 0], [0, 1], [1, 0], [0, 1]], bool)
    found = regroup(paths)
    assert (found.before, found.after) == (4, 2)
    assert [group.tolist() for group in found.groups] == [[0, 2], [1, 3]]


def test_groups_hidden_in_noise_are_found():
    generator = np.random.default_rng(0)
    kinds = generator.permutation([0, 1] * 16)
    paths = np.zeros((32, 40), bool)
    for token, kind in enumerate(kinds):
        paths[token, generator.choice(20, 5, False) + 20 * kind] = True
    found = regroup(paths)
    assert found.before > 60
    assert found.after == distinct(paths, np.flatnonzero(kinds == 0)) + distinct(paths, np.flatnonzero(kinds == 1))
    assert {frozenset(kinds[group]) for group in found.groups} == {frozenset({0}), frozenset({1})}


@given(st.integers(0, 10_000), st.integers(0, 4), st.integers(1, 6))
def test_it_is_never_worse_than_unchanged_nor_better_than_the_best(seed, half, experts):
    paths = np.random.default_rng(seed).random((2 * half, experts)) < 0.4
    found = regroup(paths)
    everyone = range(2 * half)
    assert sorted(found.order.tolist()) == [*everyone]
    assert [len(group) for group in found.groups] == [half, half]
    assert found.before == distinct(paths, [*everyone][:half]) + distinct(paths, [*everyone][half:])
    assert found.after == sum(distinct(paths, group) for group in found.groups) <= found.before
    splits = (set(one) for one in combinations(everyone, half))
    best = min(distinct(paths, sorted(one)) + distinct(paths, sorted({*everyone} - one)) for one in splits)
    assert found.after >= best
    if found.after == found.before:
        assert found.order.tolist() == [*everyone]


def test_rows_of_a_cache_go_there_and_back():
    generator = np.random.default_rng(1)
    found = regroup(generator.random((16, 12)) < 0.3)
    assert found.after < found.before
    cache = generator.random((16, 3, 5))
    assert np.array_equal(cache[found.order][found.inverse], cache)


def test_an_odd_number_of_tokens_is_refused():
    with pytest.raises(ValueError, match="an even number of tokens, got 3"):
        regroup(np.zeros((3, 2), bool))


def queues_of(*lengths: int) -> list[list[Queued]]:
    """Queues of fresh tokens, numbered through."""
    numbers = iter(range(sum(lengths)))
    return [[Queued(next(numbers)) for _ in range(length)] for length in lengths]


def tokens(batch) -> dict[int, list[int]]:
    return {expert: [one.token for one in chosen] for expert, chosen in batch.chosen.items()}


def test_five_three_and_two_with_room_for_eight_need_two_experts():
    batch = batch_by_expert(queues_of(5, 3, 2), limit=8)
    assert tokens(batch) == {0: [0, 1, 2, 3, 4], 1: [5, 6, 7]}
    assert batch.rest == [[], [], [Queued(8, 1), Queued(9, 1)]]


def test_the_longest_is_first_and_equals_go_by_expert():
    assert list(tokens(batch_by_expert(queues_of(1, 3, 2, 3), limit=7))) == [1, 3, 2]
    assert tokens(batch_by_expert(queues_of(1, 3, 2, 3), limit=4)) == {1: [1, 2, 3], 3: [6]}
    assert tokens(batch_by_expert([[], []], limit=4)) == {}


def test_a_rare_expert_waits_no_longer_than_it_may():
    queues = queues_of(4, 1)
    waited = []
    for most_waited in (None, 2):
        rest, rounds = queues, 0
        while rest[1] and rounds < 10:
            batch = batch_by_expert(rest, limit=4, most_waited=most_waited)
            # four new tokens come for the first expert every time.
            rest, rounds = [[*batch.rest[0], *queues_of(4)[0]], batch.rest[1]], rounds + 1
        waited.append(rounds)
    assert waited == [10, 3]


def test_who_waited_too_long_brings_the_others_of_its_expert():
    queues = [[Queued(0), Queued(1), Queued(2)], [Queued(3, 5), Queued(4, 1)]]
    assert tokens(batch_by_expert(queues, limit=3, most_waited=5)) == {1: [3, 4], 0: [0]}
    assert tokens(batch_by_expert(queues, limit=1, most_waited=5)) == {1: [3]}


LENGTHS = st.lists(st.integers(0, 6), min_size=1, max_size=5)


@given(LENGTHS, st.integers(1, 9), st.one_of(st.none(), st.integers(0, 3)))
def test_everybody_is_served_once_and_in_order(lengths, limit, most_waited):
    rest, served = queues_of(*lengths), [[] for _ in lengths]
    for _ in range(-(-sum(lengths) // limit)):
        batch = batch_by_expert(rest, limit=limit, most_waited=most_waited)
        size = sum(map(len, batch.chosen.values()))
        assert size == min(limit, sum(map(len, rest)))
        for expert, chosen in batch.chosen.items():
            served[expert] += [one.token for one in chosen]
        rest = batch.rest
    assert served == [[one.token for one in queue] for queue in queues_of(*lengths)]


@given(LENGTHS, st.integers(1, 9), st.randoms(use_true_random=False))
def test_the_first_batch_needs_no_more_experts_than_the_order_of_arrival(lengths, limit, random):
    arrivals = [expert for expert, length in enumerate(lengths) for _ in range(length)]
    random.shuffle(arrivals)
    batch = batch_by_expert(queues_of(*lengths), limit=limit)
    assert len(batch.chosen) <= len(set(arrivals[:limit]))


def test_a_batch_has_room_for_somebody():
    with pytest.raises(ValueError, match="limit must be at least 1, got 0"):
        batch_by_expert(queues_of(1), limit=0)

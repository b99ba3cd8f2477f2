"""Algorithm 1 of arXiv 2401.14361v3."""

from itertools import pairwise

import numpy as np
import pytest

from workbench.offload.cache import ExpertCache
from workbench.offload.policies.activation_matrix import ActivationMatrix

A = [([0, 1], [3, 1]), ([3], [4])]
B = [([0, 1], [1, 3]), ([2], [4])]


def remember(policy: ActivationMatrix, *requests) -> None:
    for layers in requests:
        for layer, (pages, counts) in enumerate(layers):
            policy.observe(layer, pages, counts)
        policy.begin_sequence()


def order(policy: ActivationMatrix, pages: list[int]) -> list[int]:
    """Who leaves, one after the other."""
    gone = []
    for page in pages:
        policy.enter(page)
    for _ in pages:
        gone.append(policy.victim(frozenset(gone)))
    return gone


@pytest.mark.parametrize("distance", ["row", "flat"])
def test_the_tiny_example_scores_as_worked_out(shape, distance):
    policy = ActivationMatrix(shape(4, num_experts=2), distance=distance, eps=0.0)
    remember(policy, A, B)
    policy.observe(0, [0], [1])
    assert policy._score(policy.collection.nearest()).tolist() == [0.75, 0.25, 0.0, 0.5]
    assert order(policy, [0, 1, 2, 3]) == [2, 1, 3, 0]


def test_the_next_request_like_a_past_one_keeps_its_experts(shape):
    policy = ActivationMatrix(shape(4, num_experts=2))
    remember(policy, A, B)
    policy.observe(0, [1], [1])
    assert order(policy, [0, 1, 2, 3]) == [3, 0, 2, 1]


def test_with_a_large_eps_the_deepest_layer_leaves_first(shape):
    policy = ActivationMatrix(shape(8, num_layers=4, num_experts=2), eps=1e9)
    for number, layer in enumerate((2, 0, 3, 1)):
        policy.observe(layer, [2 * layer], [1 + number])
    layers = [page // 2 for page in order(policy, [5, 0, 7, 2, 1, 3, 4, 6])]
    assert all(deep >= shallow for deep, shallow in pairwise(layers))


def test_of_equal_scores_the_oldest_use_leaves(shape):
    policy = ActivationMatrix(shape(3, num_layers=1, num_experts=6))
    cache = ExpertCache(3, policy)
    remember(policy, [([5], [1])])
    evicted = []
    for page in (2, 0, 1, 2, 3, 4):
        policy.observe(0, [page], [1])
        evicted += [gone for wave in cache.step([page]) for gone in wave.evicted]
    # nobody but 5 has a share: 0 was used before 1, and 2 once more after it.
    assert evicted == [-1, -1, -1, 0, 1]


def test_until_a_request_has_ended_its_own_activations_count(shape):
    policy = ActivationMatrix(shape(3, num_layers=1, num_experts=6))
    for page, tokens in ((0, 5), (1, 1), (2, 3)):
        policy.observe(0, [page], [tokens])
    assert order(policy, [0, 1, 2]) == [1, 2, 0]


def test_the_ranking_of_a_few_is_that_of_all(shape, draw):
    size = shape(9, num_layers=2, num_experts=12, top_k=3)
    found = []
    for ranked in (ActivationMatrix._ranked, lambda policy, number: ActivationMatrix._ranked(policy, 10**6)):
        policy = ActivationMatrix(size, eamc_capacity=3)
        policy._ranked = ranked.__get__(policy)
        cache, evicted = ExpertCache(9, policy), []
        for number, pages in enumerate(draw(2, pages=12, largest=5, length=200, num_layers=2)):
            if number % 20 == 0:
                policy.begin_sequence()
            policy.observe(number % 2, pages, [1] * len(pages))
            evicted += [wave.evicted for wave in cache.step(pages)]
        found.append(evicted)
    assert found[0] == found[1]
    assert sum(map(len, found[0])) > 100


def test_a_request_enters_when_the_next_begins_and_only_once(shape):
    policy = ActivationMatrix(shape(2, num_experts=2), eamc_capacity=5)
    policy.begin_sequence()
    assert len(policy.collection) == 0
    remember(policy, A, B)
    policy.begin_sequence()
    assert len(policy.collection) == 2
    assert np.allclose(policy.collection.shares(1), [[0.25, 0.75], [1.0, 0.0]])

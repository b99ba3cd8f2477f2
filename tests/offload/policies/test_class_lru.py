"""LRU lists by class of use."""

from math import inf

import pytest

from workbench.offload.policies.class_lru import ClassLRU


def used(policy: ClassLRU, page: int, times: int = 1) -> None:
    for _ in range(times):
        policy.observe(0, [page], [1])
        policy.touch(page)


def two_pages(shape, *, first: int, then: int, half_life: float = inf) -> ClassLRU:
    """A policy with page 0 used some times and then page 1."""
    policy = ClassLRU(shape(2, num_layers=1, num_experts=4, top_k=1), half_life=half_life)
    policy.enter(0)
    policy.enter(1)
    used(policy, 0, first)
    used(policy, 1, then)
    return policy


@pytest.mark.parametrize(
    ("first", "then", "victim"),
    [
        (4, 1, 1),
        (4, 3, 0),
        (1, 1, 0),
    ],
)
def test_the_largest_age_over_two_to_the_class_leaves(shape, first, then, victim):
    policy = two_pages(shape, first=first, then=then)
    policy.enter(2)
    used(policy, 2)
    ages = {0: then + 2, 1: 2}
    level = {page: min(times.bit_length() - 1, 7) for page, times in ((0, first), (1, then))}
    expected = max((0, 1), key=lambda page: ages[page] / 2 ** level[page])
    assert policy.victim(frozenset({2})) == expected == victim


def test_without_different_classes_it_is_lru(replay, draw):
    # every use is forgotten at once, so all are in class 0.
    for seed in range(8):
        sets = draw(seed, pages=9, largest=3, length=50)
        assert replay("class_lru", sets, 5, half_life=0.01).evicted == replay("lru", sets, 5).evicted


def test_often_used_experts_survive_a_scan(replay):
    sets = [[0], [1]] * 32 + [[page] for page in range(2, 8)] + [[0], [1]]
    assert replay("class_lru", sets, 3).misses[-2:] == [[], []]
    assert replay("lru", sets, 3).misses[-2:] == [[0], [1]]


def test_a_class_outlives_eviction(shape):
    policy = two_pages(shape, first=64, then=1)
    policy.leave(0)
    policy.enter(0)
    used(policy, 1, 2)
    # 0 is the older one, of class 6; without its past it would be of class 0.
    assert policy.victim(frozenset()) == 1


def test_uses_count_half_after_the_half_life_in_tokens(shape):
    policy = ClassLRU(shape(2, num_layers=1, num_experts=4, top_k=2), half_life=8.0)
    policy.enter(0)
    used(policy, 0, 3)
    # two experts per token: counts of 8 and 8 are eight tokens.
    policy.observe(0, [1, 2], [8, 8])
    ratio = policy._uses.values[0] / policy._uses.weight
    assert ratio == pytest.approx(0.5 * (1 + 2 ** (-1 / 8) + 2 ** (-2 / 8)))


def test_a_half_life_must_be_positive(shape):
    with pytest.raises(ValueError, match="half_life must be above 0, got 0"):
        ClassLRU(shape(2), half_life=0.0)

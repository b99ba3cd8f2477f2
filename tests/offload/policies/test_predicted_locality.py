"""Slots by predicted demand, arXiv 2410.17954."""

import pytest

from workbench.offload.cache import ExpertCache
from workbench.offload.policies.predicted_locality import PredictedLocality


def test_layers_that_need_three_and_two_share_the_slots_three_to_two(shape):
    policy = PredictedLocality(shape(5))
    policy.predict(0, [0, 1, 2], [1, 1, 1])
    policy.predict(1, [4, 5], [1, 1])
    assert policy.slots() == [3, 2]


@pytest.mark.parametrize("capacity", [1, 4, 7, 13])
def test_slots_add_up_and_are_proportional_within_one(shape, capacity):
    policy = PredictedLocality(shape(capacity, num_layers=4, num_experts=8))
    demand = [5, 0, 2, 4]
    for layer, number in enumerate(demand):
        policy.predict(layer, [8 * layer + expert for expert in range(number)], [1] * number)
    assert sum(policy.slots()) == capacity
    for slots, number in zip(policy.slots(), demand, strict=True):
        assert abs(slots - capacity * number / sum(demand)) < 1


def test_without_a_prediction_no_layer_has_slots(shape):
    assert PredictedLocality(shape(3)).slots() == [0, 0]


def test_with_a_perfect_prediction_and_prefetch_nothing_is_missed(shape, draw):
    size = shape(6, num_layers=3, num_experts=8)
    policy = PredictedLocality(size)
    cache = ExpertCache(6, policy)
    sets = draw(0, pages=8, largest=2, length=60, num_layers=3)
    for first in range(0, 60, 3):
        for layer in range(3):
            policy.predict(layer, sets[first + layer], [1] * len(sets[first + layer]))
        wanted = [page for layer in range(3) for page in sets[first + layer]]
        for page in wanted:
            if page not in cache.slot_of:
                cache.prefetch(page, frozenset())
        for layer in range(3):
            policy.observe(layer, sets[first + layer], [1] * len(sets[first + layer]))
            assert [wave.misses for wave in cache.step(sets[first + layer])] == [[]]


def test_what_is_not_predicted_leaves_before_what_is(shape):
    policy = PredictedLocality(shape(3))
    for page in (0, 4, 5):
        policy.enter(page)
    policy.predict(0, [0], [1])
    policy.predict(1, [5], [1])
    assert policy.victim(frozenset()) == 4


def test_what_was_prefetched_in_vain_leaves_first(shape):
    policy = PredictedLocality(shape(3))
    policy.observe(0, [0, 1], [1, 1])
    for page in (0, 1):
        policy.enter(page)
        policy.touch(page)
    policy.predict(1, [6], [1])
    policy.enter(6)
    policy.observe(0, [2], [1])
    policy.observe(1, [5], [1])
    assert policy.victim(frozenset({5})) == 6


def test_by_default_a_layer_is_thought_to_repeat_itself(shape):
    policy = PredictedLocality(shape(3))
    for layer, pages in ((0, [0, 1]), (1, [4])):
        policy.observe(layer, pages, [1] * len(pages))
        for page in pages:
            policy.enter(page)
            policy.touch(page)
    policy.observe(0, [0], [1])
    # 4 is the older use, but its layer is thought to ask for it again; 1 was not asked for this time.
    assert policy.victim(frozenset({0})) == 1


def test_if_all_are_predicted_a_layer_with_too_many_gives_the_expert_with_the_fewest_tokens(shape):
    policy = PredictedLocality(shape(4))
    policy.predict(0, [0, 1, 2], [5, 2, 3])
    policy.predict(1, [4, 5, 6], [1, 1, 1])
    for page in (0, 1, 2, 4):
        policy.enter(page)
    assert policy.slots() == [2, 2]
    assert policy.victim(frozenset()) == 1
    assert policy.victim(frozenset({0, 1, 2})) == 4

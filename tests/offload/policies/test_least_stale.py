"""What the running pass has not touched leaves first."""

from workbench.offload.cache import ExpertCache
from workbench.offload.policies.least_stale import LeastStale

LAYERS, EXPERTS = 3, 4


def after(shape, capacity: int, sets: list[list[int]]) -> tuple[ExpertCache, list[list[int]]]:
    """A cache after sets of the layers in turn, and who left in each."""
    policy = LeastStale(shape(capacity, num_layers=LAYERS, num_experts=EXPERTS))
    cache, evicted = ExpertCache(capacity, policy), []
    for number, pages in enumerate(sets):
        policy.observe(number % LAYERS, pages, [1] * len(pages))
        evicted.append([page for wave in cache.step(pages) for page in wave.evicted if page >= 0])
    return cache, evicted


def test_what_this_pass_touched_stays_as_long_as_anything_else_may_leave(shape):
    # second pass, layer 0: stale are 0 (just passed), 4 (comes next) and 8 (comes last).
    _, evicted = after(shape, 3, [[0], [4], [8], [1]])
    assert evicted[3] == [0]


def test_the_layer_whose_turn_comes_latest_gives(shape):
    # layer 0 keeps its expert in the second pass; when layer 1 misses, 4 has had its turn and 8 is still to come.
    _, evicted = after(shape, 3, [[0], [4], [8], [0], [5]])
    assert evicted[4] == [4]


def test_if_all_is_fresh_the_layer_that_ran_last_gives(shape):
    _, evicted = after(shape, 2, [[0], [4], [8]])
    assert evicted[2] == [4]


def test_within_a_layer_the_oldest_use_leaves(shape):
    _, evicted = after(shape, 4, [[0, 1], [4], [8], [2]])
    assert evicted[3] == [0]


def test_a_prefetched_expert_counts_as_touched(shape):
    cache, _ = after(shape, 3, [[0], [4], [8], [0]])
    assert cache.prefetch(5, frozenset({0})) == 8
    cache.policy.observe(1, [6], [1])
    assert [wave.evicted for wave in cache.step([6])] == [[4]]
    assert 5 in cache.slot_of

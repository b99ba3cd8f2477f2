"""What every policy may rely on, and what it may leave out."""

from collections.abc import Callable, Set
from functools import partial
from random import Random

import pytest

from workbench.core.records import ExpertKey
from workbench.offload.cache import ExpertCache
from workbench.offload.policies import POLICIES
from workbench.offload.policy import CachePolicy, CacheShape
from workbench.offload.requests import Requests

SHAPE = CacheShape(num_layers=3, num_experts=4, capacity=2, top_k=2)


class Told(CachePolicy):
    """The least that a policy must say; it writes down what it is told."""

    def __init__(self, shape: CacheShape):
        super().__init__(shape)
        self.heard: list[tuple[str, int]] = []
        self.held: list[int] = []

    def touch(self, page: int) -> None:
        self.heard.append(("touch", page))

    def enter(self, page: int) -> None:
        self.held.append(page)
        self.heard.append(("enter", page))

    def leave(self, page: int) -> None:
        self.held.remove(page)
        self.heard.append(("leave", page))

    def victim(self, pinned: Set[int]) -> int:
        return next(page for page in self.held if page not in pinned)


def test_pages_are_counted_through_the_layers():
    assert SHAPE.num_pages == 12
    assert [SHAPE.key(page) for page in (0, 3, 4, 11)] == [
        ExpertKey(0, 0),
        ExpertKey(0, 3),
        ExpertKey(1, 0),
        ExpertKey(2, 3),
    ]


def test_a_cache_calls_in_the_order_that_is_promised():
    policy = Told(SHAPE)
    cache = ExpertCache(2, policy)
    list(cache.step([1, 2]))
    cache.prefetch(5, {2})
    list(cache.step([2, 3]))
    assert policy.heard == [
        *[("enter", 1), ("touch", 1), ("enter", 2), ("touch", 2)],
        *[("leave", 1), ("enter", 5)],
        *[("touch", 2), ("leave", 5), ("enter", 3), ("touch", 3)],
    ]


def test_hooks_that_are_left_out_do_nothing():
    policy = Told(SHAPE)
    policy.observe(0, [1], [1])
    policy.begin_sequence()
    assert policy.admit(3) and not policy.reads_future and not policy.is_stack and policy.heard == []


@pytest.mark.parametrize("missing", ["touch", "victim"])
def test_a_policy_must_say_who_leaves(missing):
    with pytest.raises(TypeError, match=missing):
        type("Half", (CachePolicy,), {})(SHAPE)


def test_every_registered_policy_is_one(policy_name):
    assert issubclass(POLICIES.get(policy_name), CachePolicy)


class OnlyEven(Told):
    """Keeps no page with an odd number."""

    def admit(self, page: int) -> bool:
        return page % 2 == 0


def test_a_page_that_is_not_admitted_gets_no_slot():
    cache = ExpertCache(2, OnlyEven(SHAPE))
    (wave,) = cache.step([1, 2])
    assert (wave.misses, wave.bypassed, wave.evicted) == ([2], [1], [-1])
    (wave,) = cache.step([4, 5])
    assert (wave.misses, wave.bypassed, wave.evicted, wave.slots) == ([4], [5], [-1], [1])
    (wave,) = cache.step([6, 7])
    assert (wave.misses, wave.bypassed, wave.evicted, wave.slots) == ([6], [7], [2], [0])


def drawn(seed: int) -> Requests:
    """Sets of three layers in turn; some have more pages than the caches have slots."""
    generator, sets = Random(seed), []
    for number in range(240):
        size = generator.choice((1, 2, 2, 3, 8)) if seed % 2 else generator.randint(1, 3)
        drawn = {int(10 * generator.random() ** 1.7) for _ in range(size)}
        sets.append([number % 3 * 10 + expert for expert in sorted(drawn)])
    return Requests.of_sets(sets, num_layers=3, num_experts=10)


def one_by_one(policy: CachePolicy) -> Callable[[list[int]], None]:
    """`touch` for every page; a policy may say what that is by `touch_all` of one."""
    whole = policy.touch_all

    def touch_all(pages: list[int]) -> None:
        policy.touch_all = whole
        for page in pages:
            policy.touch(page)
        policy.touch_all = touch_all

    return touch_all


def events(name: str, requests: Requests, *, page_by_page: bool) -> list[object]:
    shape = CacheShape(num_layers=3, num_experts=10, capacity=5, top_k=3)
    policy = POLICIES.get(name)(shape)
    if page_by_page:
        policy.touch_all, policy.place = one_by_one(policy), partial(CachePolicy.place, policy)
    policy.foresee(requests)
    cache, generator, found = ExpertCache(5, policy), Random(1), list[object]()
    for number, (layer, pages) in enumerate(zip(requests.layer.tolist(), requests.sets(), strict=True)):
        if number % 40 == 0:
            policy.begin_sequence()
        policy.observe(layer, pages, [1 + page % 3 for page in pages])
        found += cache.step(pages)
        if generator.random() < 0.3:
            guess = generator.randrange(30)
            if guess not in cache.slot_of:
                found.append(cache.prefetch(guess, frozenset(pages)))
        if generator.random() < 0.1:
            cache.drop(next(iter(cache.slot_of)))
    return found


# min_bypass looks at a whole wave to say whom it keeps: it has no choice for one page.
@pytest.mark.parametrize("name", sorted({*POLICIES.names()} - {"min_bypass"}))
def test_a_set_at_once_is_its_pages_one_after_the_other(name):
    for seed in range(6):
        requests = drawn(seed)
        at_once = events(name, requests, page_by_page=False)
        assert at_once == events(name, requests, page_by_page=True), seed
        assert sum(len(wave.evicted) for wave in at_once if isinstance(wave, tuple)) > 100

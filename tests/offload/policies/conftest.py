"""Small caches driven by hand, the optimum by trying everything, and the sequences of the papers."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from itertools import combinations
from random import Random
from typing import Any

import pytest

from workbench.offload.cache import ExpertCache
from workbench.offload.policies import POLICIES
from workbench.offload.policy import CachePolicy, CacheShape
from workbench.offload.requests import Requests

Sets = list[list[int]]

# The sequence of arXiv 2210.02775's tests, and batched steps.
CLASSIC = [[page] for page in (1, 2, 3, 4, 1, 2, 5, 1, 2, 3, 4, 5)]
CYCLIC = [[page] for page in (0, 1, 2, 3)] * 10
BATCHED = [[0, 1], [2, 3], [0, 1], [2, 4], [0, 3], [1, 2]]


@dataclass
class Replay:
    """A replayed sequence: what happened in every set."""

    policy: CachePolicy
    cache: ExpertCache
    misses: list[list[int]] = field(default_factory=list)
    evicted: list[list[int]] = field(default_factory=list)

    @property
    def num_misses(self) -> int:
        return sum(map(len, self.misses))

    @property
    def evictions(self) -> dict[int, list[int]]:
        """Set -> who left in it."""
        return {index: gone for index, gone in enumerate(self.evicted) if gone}


# a registry looks into its folder each time, which takes longer than a short replay.
policy_class = cache(POLICIES.get)


def build(name: str, shape: CacheShape, args: dict[str, Any]) -> CachePolicy:
    return policy_class(name)(shape, **args)


def run(name: str, sets: Sets, capacity: int, *, num_layers: int = 1, num_experts: int | None = None, **args) -> Replay:
    """A policy by name over sets written by hand."""
    requests = Requests.of_sets(sets, num_layers=num_layers, num_experts=num_experts)
    size = {"num_layers": num_layers, "num_experts": requests.num_experts, "top_k": requests.top_k}
    policy = build(name, CacheShape(capacity=capacity, **size), args)
    if policy.reads_future:
        policy.foresee(requests)
    done = Replay(policy, ExpertCache(capacity, policy))
    for layer, pages in zip(requests.layer.tolist(), requests.sets(), strict=True):
        policy.observe(layer, pages, [1] * len(pages))
        waves = list(done.cache.step(pages))
        done.misses.append([page for wave in waves for page in (*wave.misses, *wave.bypassed)])
        done.evicted.append([page for wave in waves for page in wave.evicted if page >= 0])
    return done


def run_serially(name: str, sets: Sets, capacity: int) -> int:
    """Misses where the experts of a set run one after the other, each alone in its step."""
    shape = CacheShape(num_layers=1, num_experts=max(map(max, sets)) + 1, capacity=capacity, top_k=max(map(len, sets)))
    policy = build(name, shape, {})
    cache, misses = ExpertCache(capacity, policy), 0
    for pages in sets:
        policy.observe(0, pages, [1] * len(pages))
        misses += sum(len(wave.misses) for page in pages for wave in cache.step([page]))
    return misses


def next_states(state: frozenset[int], asked: frozenset[int], capacity: int, bypass: bool) -> Iterator[frozenset[int]]:
    """Every cache that may follow a set, hits of which may not leave."""
    hits, missing, others = state & asked, sorted(asked - state), sorted(state - asked)
    for number in range(len(missing) + 1) if bypass else [len(missing)]:
        for kept in combinations(missing, number):
            room = capacity - len(hits) - number
            if room >= 0:
                for rest in combinations(others, min(room, len(others))):
                    yield hits | {*kept, *rest}


def best(sets: Sets, capacity: int, *, bypass: bool = False) -> int:
    """The fewest misses that any choice of victims has."""
    costs: dict[frozenset[int], int] = {frozenset(): 0}
    for pages in sets:
        asked, following = frozenset(pages), {}
        for state, cost in costs.items():
            cost += len(asked - state)
            for later in next_states(state, asked, capacity, bypass):
                following[later] = min(cost, following.get(later, cost))
        costs = following
    return min(costs.values())


def draw_sets(seed: int, *, pages: int = 6, largest: int = 1, length: int = 14, num_layers: int = 1) -> Sets:
    """Random sets, layer after layer, some pages likelier than others."""
    generator, drawn = Random(seed), []
    for index in range(length):
        wanted = {int(pages * generator.random() ** 1.5) for _ in range(generator.randint(1, largest))}
        drawn.append(sorted(pages * (index % num_layers) + page for page in wanted))
    return drawn


@pytest.fixture
def replay() -> Callable[..., Replay]:
    return run


@pytest.fixture
def serially() -> Callable[..., int]:
    return run_serially


@pytest.fixture
def optimum() -> Callable[..., int]:
    return best


@pytest.fixture
def draw() -> Callable[..., Sets]:
    return draw_sets


@pytest.fixture
def classic() -> Sets:
    return CLASSIC


@pytest.fixture
def cyclic() -> Sets:
    return CYCLIC


@pytest.fixture
def batched() -> Sets:
    return BATCHED


@pytest.fixture
def shape() -> Callable[..., CacheShape]:
    """Of two layers of four experts, if nothing else is said."""

    def make(capacity: int, *, num_layers: int = 2, num_experts: int = 4, top_k: int = 2) -> CacheShape:
        return CacheShape(num_layers=num_layers, num_experts=num_experts, capacity=capacity, top_k=top_k)

    return make

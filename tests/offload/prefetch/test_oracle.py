"""The next sets as they come, and what perfect prediction can save."""

import numpy as np
import pytest

from workbench.core.spec import Spec
from workbench.offload.replay.scene import Replay, Scene, replay
from workbench.offload.requests import Requests
from workbench.offload.tiers.cost import LinkCost

SETS = [[0, 1], [4, 5], [1, 2], [5, 6], [0, 3]]
BLOCK, SPEED = 1 << 20, 1e9


def requests_of(sets: list[list[int]]) -> Requests:
    return Requests.of_sets(sets, num_layers=2, num_experts=4)


def run(sets, prefetch: str | None, *, compute: float, capacity: int = 4, experts: int = 4, layers: int = 2) -> Replay:
    requests = Requests.of_sets(sets, num_layers=layers, num_experts=experts)
    scene = Scene(block_bytes=BLOCK, cost=LinkCost(bytes_per_second=SPEED), layer_seconds=compute)
    spec = None if prefetch is None else Spec.parse(prefetch)
    return replay(requests, policy=Spec("lru"), capacity=capacity, prefetch=spec, scene=scene)


def test_it_says_what_comes(drive):
    driven = drive("oracle")
    driven.prefetcher.foresee(requests_of(SETS))
    found = [driven.see(number % 2, [page % 4 for page in pages]) for number, pages in enumerate(SETS)]
    assert [[page for page, _ in guesses] for guesses in found] == [*SETS[1:], []]


def test_it_looks_as_far_as_it_is_told_the_nearest_first(drive):
    driven = drive("oracle", distance=2)
    driven.prefetcher.foresee(requests_of(SETS))
    found = [driven.see(number % 2, [page % 4 for page in pages]) for number, pages in enumerate(SETS)]
    assert [[page for page, _ in one] for one in found] == [[4, 5, 1, 2], [1, 2, 5, 6], [5, 6, 0, 3], [0, 3], []]
    with pytest.raises(ValueError, match="distance must be between 1 and 2, got 3"):
        drive("oracle", distance=3)


def test_it_must_foresee_before_it_speaks(drive):
    with pytest.raises(LookupError, match="the oracle has not foreseen anything"):
        drive("oracle").see(0, [1])


@pytest.mark.parametrize("prefetch", [None, "oracle", "oracle:distance=2"])
def test_without_computation_to_hide_behind_nothing_is_saved(prefetch):
    generator = np.random.default_rng(0)
    sets = [sorted(generator.choice(4, 2, False) + number % 2 * 4) for number in range(200)]
    done = run([[int(page) for page in one] for one in sets], prefetch, compute=0.0)
    assert done.ledger.moved_bytes > 100 * BLOCK
    assert done.seconds == pytest.approx(done.ledger.moved_bytes / SPEED)


@pytest.mark.parametrize("share", [0.2, 1.0, 5.0])
def test_perfect_overlap_is_at_most_twice_as_fast(share):
    # no page comes twice, so that nothing but the overlap differs.
    sets = [[number % 2 * 100 + number] for number in range(100)]
    copying = 100 * BLOCK / SPEED
    alone = run(sets, None, compute=share * BLOCK / SPEED, capacity=20, experts=100)
    hidden = run(sets, "oracle", compute=share * BLOCK / SPEED, capacity=20, experts=100)
    assert alone.seconds == pytest.approx(copying * (1 + share))
    assert hidden.ledger.moved_bytes == alone.ledger.moved_bytes == 100 * BLOCK
    assert hidden.ledger.wasted_bytes == 0
    # the first expert is not overlapped.
    assert hidden.seconds == pytest.approx(copying * max(1, share), rel=0.03)
    assert 1 < alone.seconds / hidden.seconds <= 2


def test_nothing_is_faster_than_its_parts():
    generator = np.random.default_rng(1)
    sets = [[int(page) for page in sorted(generator.choice(8, 2, False) + n % 3 * 8)] for n in range(90)]
    for capacity in (2, 6, 20):
        done = run(sets, "oracle:distance=3", compute=1e-3, capacity=capacity, experts=8, layers=3)
        assert done.seconds >= max(0.09, done.ledger.moved_bytes / SPEED - 1e-3)


def test_a_second_replay_begins_anew(drive):
    driven, requests = drive("oracle"), requests_of(SETS)
    for _ in range(2):
        driven.prefetcher.foresee(requests)
        assert [page for page, _ in driven.see(0, [0, 1])] == [4, 5]

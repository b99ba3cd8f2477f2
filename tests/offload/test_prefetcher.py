"""What every prefetcher may rely on, and what it may leave out."""

import pytest

from workbench.offload.policy import CacheShape
from workbench.offload.prefetch import PREFETCHERS
from workbench.offload.prefetcher import Guess, Observation, Prefetcher

SHAPE = CacheShape(num_layers=2, num_experts=4, capacity=2, top_k=2)


class Same(Prefetcher):
    """The least that a prefetcher must say: the same experts in the next layer."""

    def predict(self, seen: Observation) -> list[Guess]:
        return [(page + 4, 1.0) for page in seen.pages]


def test_hooks_that_are_left_out_do_nothing():
    prefetcher = Same(SHAPE)
    seen = Observation(0, [1, 2], [1, 1], lambda: pytest.fail("nobody asked for the gate"))
    prefetcher.learn(seen)
    prefetcher.begin_sequence()
    assert prefetcher.begin_pass((1, 2)) == ()
    assert prefetcher.predict(seen) == [(5, 1.0), (6, 1.0)]
    assert not prefetcher.reads_future and not prefetcher.needs_ahead


def test_a_prefetcher_must_guess():
    with pytest.raises(TypeError, match="predict"):
        type("Mute", (Prefetcher,), {})(SHAPE)


def test_every_registered_prefetcher_is_one():
    assert all(issubclass(PREFETCHERS.get(name), Prefetcher) for name in PREFETCHERS.names())

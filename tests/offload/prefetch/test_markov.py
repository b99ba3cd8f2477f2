"""Transitions counted by hand."""

import numpy as np
import pytest

from workbench.core.spec import Spec
from workbench.offload.replay.scene import Scene, replay
from workbench.offload.requests import Requests
from workbench.offload.tiers.cost import LinkCost


def test_counts_by_hand(drive):
    driven = drive("markov", most=4)
    for following in (1, 1, 2):
        driven.see(0, [0])
        driven.see(1, [following])
    # after expert 0: expert 1 twice and expert 2 once, one more of each of the four by Laplace's rule.
    assert driven.see(0, [0]) == [(5, pytest.approx(3 / 7)), (6, pytest.approx(2 / 7))]


def test_after_the_last_layer_comes_the_first_of_the_next_token(drive):
    driven = drive("markov")
    for _ in range(2):
        driven.see(0, [2])
        driven.see(1, [3])
    driven.see(0, [2])
    assert driven.see(1, [3]) == [(2, pytest.approx(3 / 6))]


def test_contexts_are_weighed_by_their_tokens(drive):
    driven = drive("markov", most=4, smoothing=0.0)
    driven.see(0, [0])
    driven.see(1, [1])
    driven.begin()
    driven.see(0, [3])
    driven.see(1, [2])
    driven.begin()
    assert driven.see(0, [0, 3], [3, 1]) == [(5, 0.75), (6, 0.25)]


def test_a_pass_of_many_tokens_counts_in_proportion(drive):
    driven = drive("markov", most=4, smoothing=0.0)
    driven.see(0, [0, 1], [1, 3])
    driven.see(1, [1, 2], [1, 3])
    driven.begin()
    assert driven.see(0, [0]) == [(6, 0.75), (5, 0.25)]


def test_two_layers_tell_apart_what_one_confuses(drive):
    # what layer 2 asks for depends on layer 0 alone, and layer 1 always asks for expert 0.
    one, two = (drive("markov", deep=3, layers=layers) for layers in (1, 2))
    for driven in (one, two):
        for first in (1, 2, 1, 2, 1):
            for layer, expert in enumerate((first, 0, first)):
                driven.see(layer, [expert])
        driven.see(0, [2])
    assert [page for page, _ in two.see(1, [0])] == [10]
    assert [page for page, _ in one.see(1, [0])] == [9]


def test_old_counts_fade(drive):
    for keep, expected in ((1.0, 5), (0.5, 6)):
        driven = drive("markov", keep=keep)
        for following in (1, 1, 1, 2, 2):
            driven.see(0, [0])
            driven.see(1, [following])
        assert driven.see(0, [0])[0][0] == expected


def test_a_new_text_follows_nothing_and_keeps_what_was_learned(drive):
    driven = drive("markov")
    driven.see(0, [0])
    driven.see(1, [1])
    driven.begin()
    assert driven.see(0, [0]) == [(5, pytest.approx(2 / 5))]
    # the last expert of the old text was not followed by the first of the new one.
    assert driven.see(1, [1]) == []


def test_wrong_arguments_are_refused(drive):
    with pytest.raises(ValueError, match="layers must be between 1 and 2, got 3"):
        drive("markov", layers=3)
    with pytest.raises(ValueError, match=r"keep must be between 0 and 1, got 1\.5"):
        drive("markov", keep=1.5)


def test_a_chain_is_learned_and_saves_stalls():
    generator = np.random.default_rng(0)
    # the second layer's expert follows from the first's nine times of ten, the first's is chance.
    sets = []
    for _ in range(150):
        first = int(generator.integers(16))
        sets += [[first], [16 + (first * 5 + (generator.random() > 0.9)) % 16]]
    requests = Requests.of_sets([[int(page) for page in one] for one in sets], num_layers=2, num_experts=16)
    scene = Scene(block_bytes=1 << 20, cost=LinkCost(bytes_per_second=1e9), layer_seconds=2e-3)
    plain, guessed = (
        replay(requests, policy=Spec("lru"), capacity=8, prefetch=prefetch, scene=scene).ledger
        for prefetch in (None, Spec("markov"))
    )
    assert plain.hit_rate < 0.3
    assert guessed.hit_rate > plain.hit_rate + 0.25
    assert guessed.stall_seconds < 0.75 * plain.stall_seconds

"""Bits that are learned."""

from math import log2

import numpy as np
import pytest

from workbench.offload.policies._bits import FEATURES, BitSource, UseFeatures, fit_bits
from workbench.offload.policies._labels import discard_labels
from workbench.offload.requests import Requests


def scan_and_loop(length: int = 60) -> list[list[int]]:
    """Four experts in a loop, and between them others that are used once."""
    return [[index // 2 % 4] if index % 2 == 0 else [4 + index // 2] for index in range(length)]


def told(shape, weights: list[float], requests: Requests) -> list[int]:
    """The bits of a learned source for every request."""
    size = shape(1, num_layers=requests.num_layers, num_experts=requests.num_experts, top_k=requests.top_k)
    source = BitSource(size, discard_labels, bits="learned", weights=weights, flip0=0.0, flip1=0.0, seed=0)
    return [bit for pages in requests.sets() for bit in source.observe(0, pages, [1] * len(pages))]


def test_features_are_those_worked_out_by_hand(shape):
    features = UseFeatures(shape(2, num_layers=2))
    largest = 1 / (1 - 2 ** (-1 / 16))
    assert features.observe(0, [0, 1], [3, 1]) == [
        (1.0, 0.0, 1.0, 0.0, 1 / largest, 0.75, 0.0),
        (1.0, 0.0, 1.0, 0.0, 1 / largest, 0.25, 0.0),
    ]
    assert features.observe(1, [5], [4]) == [(1.0, 0.0, 1.0, 0.0, 1 / largest, 1.0, 0.5)]
    features.observe(0, [1], [1])
    again = features.observe(0, [0], [1])[0]
    assert again == pytest.approx((1.0, log2(3), 0.0, 1.0, (1 + 2 ** (-2 / 16)) / largest, 1.0, 0.0))
    assert len(again) == len(FEATURES)


def test_bits_that_can_be_told_are_told_without_error(shape):
    requests = Requests.of_sets(scan_and_loop())
    labels = discard_labels(requests, 5)
    weights = fit_bits(requests, labels)
    # a first use of the loop looks like any of the scan, and nothing tells that the end is near.
    assert told(shape, weights, requests)[8:50] == labels.tolist()[8:50]
    assert 0 < sum(labels) < len(labels)


def test_a_constant_trace_reaches_zero_error(shape):
    requests = Requests.of_sets([[0, 1]] * 20)
    labels = discard_labels(requests, 2)
    assert told(shape, fit_bits(requests, labels), requests) == labels.tolist() == [0] * 40


def test_the_fit_is_a_minimum_of_the_loss(draw, shape):
    requests = Requests.of_sets(draw(3, pages=12, largest=2, length=300))
    labels = discard_labels(requests, 5)
    weights = np.array(fit_bits(requests, labels, wrong_zero_cost=3.0))
    rows = UseFeatures(shape(1, num_layers=1, num_experts=12))
    x = np.array([row for pages in requests.sets() for row in rows.observe(0, pages, [1] * len(pages))])

    def loss(weights):
        score = x @ weights
        each = np.where(labels == 1, 3 * np.logaddexp(0, -score), np.logaddexp(0, score))
        return each.mean() + 0.5e-3 * weights @ weights

    for index in range(len(FEATURES)):
        for step in (-0.05, 0.05):
            moved = weights.copy()
            moved[index] += step
            assert loss(moved) > loss(weights)


def test_a_dearer_wrong_zero_makes_more_ones(draw, shape):
    requests = Requests.of_sets(draw(3, pages=12, largest=2, length=300))
    labels = discard_labels(requests, 5)
    ones = [sum(told(shape, fit_bits(requests, labels, wrong_zero_cost=cost), requests)) for cost in (0.2, 1.0, 5.0)]
    assert ones == sorted(ones)
    assert ones[0] < ones[2]


def test_learned_bits_need_their_weights(shape):
    with pytest.raises(ValueError, match=r"learned bits need 7 weights \(one, gap, .*\), got 2; fit them first"):
        BitSource(shape(2), discard_labels, bits="learned", weights=[1.0, 2.0], flip0=0.0, flip1=0.0, seed=0)


def test_perfect_bits_need_the_future(shape):
    source = BitSource(shape(2), discard_labels, bits="perfect", weights=[], flip0=0.0, flip1=0.0, seed=0)
    with pytest.raises(LookupError, match="perfect bits read the future: call foresee"):
        source.observe(0, [1], [1])

"""Requests as arrays: their sets, one after the other."""

import numpy as np
import pytest

import workbench.offload.requests as module
from workbench.offload.requests import Requests

SETS = [[3, 0], [5], [], [4, 6], [1, 2, 3], [7]]


def test_sets_written_by_hand_go_through_the_layers_in_turn():
    requests = Requests.of_sets(SETS, num_layers=2, num_experts=4)
    assert (len(requests), requests.num_sets, requests.num_pages, requests.top_k) == (9, 6, 8, 3)
    assert requests.layer.tolist() == [0, 1, 0, 1, 0, 1]
    assert requests.token.tolist() == [0, 0, 1, 1, 2, 2]
    assert requests.is_first.tolist() == [True, False, False, False, False, False]
    assert list(requests.sets()) == [[0, 3], [5], [], [4, 6], [1, 2, 3], [7]]
    assert requests.num_tokens == 3


def test_without_a_number_there_are_as_many_experts_as_needed():
    assert Requests.of_sets([[3], [9]]).num_experts == 10
    assert Requests.of_sets([]).num_sets == 0
    assert Requests.of_sets([]).num_tokens == 0


@pytest.mark.parametrize("at_a_time", [1, 2, 4, 100])
def test_many_sets_are_handed_out_in_parts(monkeypatch, at_a_time):
    monkeypatch.setattr(module, "_SETS_AT_A_TIME", at_a_time)
    requests = Requests.of_sets(SETS, num_layers=2, num_experts=4)
    assert [pages for pages, _ in requests.demands()] == [sorted(pages) for pages in SETS]
    assert [counts for _, counts in requests.demands()] == [[1] * len(pages) for pages in SETS]
    assert all(isinstance(page, int) for pages in requests.sets() for page in pages)


def test_a_prompt_counts_all_its_tokens_once():
    requests = Requests(
        num_layers=2,
        num_experts=2,
        top_k=1,
        page=np.array([0, 3, 1, 2], np.int32),
        count=np.array([5, 5, 1, 1], np.int32),
        start=np.arange(5),
        layer=np.array([0, 1, 0, 1], np.int16),
        token=np.array([0, 0, 5, 5]),
        tokens=np.array([5, 5, 1, 1], np.int32),
        is_prefill=np.array([True, True, False, False]),
        is_first=np.array([True, True, False, False]),
    )
    assert requests.num_tokens == 6

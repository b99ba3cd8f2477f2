"""The loops that specify paging, on numbers worked by hand; test_paging.py holds the kernels against them."""

import numpy as np
import pytest
from workbench_kernels.paging_reference import paging_events_ref, stack_hits_ref

PAIRS = np.array([0, 1, 2, 3, 0, 1, 2, 4, 0, 3, 1, 2], np.int32)
TEXT = np.array([0, 1, 0, 2, 0, 1, 3, 0, 1, 2], np.int32)


@pytest.mark.parametrize(("policy", "misses"), [("lru", [12, 10, 7, 5]), ("min", [12, 8, 6, 5])])
def test_sets_of_two_as_worked_by_hand(policy, misses):
    events = [
        paging_events_ref(PAIRS, np.arange(0, 13, 2), capacity, num_pages=5, policy=policy) for capacity in (2, 3, 4, 5)
    ]
    assert [int((one != -2).sum()) for one in events] == misses


def test_a_set_larger_than_the_cache_comes_in_waves():
    page = np.array([3, 0, 1, 2, 3], np.int32)
    # 3 hits and keeps its slot for the first wave (0); the second wave is 1 and 2, a cache full.
    assert paging_events_ref(page, np.array([0, 1, 5]), 2, num_pages=4, policy="lru").tolist() == [-1, -1, 3, 0, -2]


@pytest.mark.parametrize(
    ("policy", "window", "rates"),
    [("lru", 1, [1, 4, 8, 10]), ("min", 1, [1, 5, 8, 10]), ("window", 2, [1, 5, 8, 10])],
)
def test_a_short_text_as_worked_by_hand(policy, window, rates):
    reuse, cold = stack_hits_ref(TEXT, np.arange(11), np.array([0, 10]), num_pages=4, policy=policy, window=window)
    assert (reuse + cold).cumsum().tolist() == rates
    assert cold.tolist() == [[1, 1, 1, 1]]

"""Curves against capacity: by hand, against runs of their own, on several processes, and beside the null."""

from dataclasses import replace

import numpy as np
import pytest

from workbench.offload.replay.counters import count_requests
from workbench.offload.replay.curves import cache_curves, independent_requests, knee_of
from workbench.offload.requests import Requests

PAIRS = [[0, 1], [2, 3], [0, 1], [2, 4], [0, 3], [1, 2]]
LINK = {"block_bytes": 100.0, "bytes_per_second": 1000.0}


def test_bytes_and_speed_by_hand():
    found = cache_curves(Requests.of_sets(PAIRS), ["lru"], [2, 3, 4, 5], **LINK, compute_seconds=0.5)
    assert found.policy.values.tolist() == ["min", "lru"]
    recorded = found.sel(source="recorded")
    assert recorded.misses.values.tolist() == [[12, 8, 6, 5], [12, 10, 7, 5]]
    assert recorded.bytes.values[1].tolist() == [1200, 1000, 700, 500]
    # six tokens compute for 3 s and wait 0.1 s for each of 12 misses.
    assert recorded.tokens_per_second.values[0, 0] == pytest.approx(6 / 4.2)
    assert recorded.hit_rate.values[1].tolist() == pytest.approx([0, 1 / 6, 5 / 12, 7 / 12])
    units = {name: found[name].attrs["units"] for name in found}
    assert units == {
        "hit_rate": "1", "misses": "request", "bytes": "B", "tokens_per_second": "token/s", "knee": "expert",
    }  # fmt: skip


def test_a_hand_made_knee_is_found():
    assert knee_of([1, 2, 3, 4, 5], np.array([0.0, 0.4, 0.8, 0.85, 0.9])) == 3
    assert np.isnan(knee_of([1, 2, 3], np.array([0.1, 0.2, 0.3])))
    assert np.isnan(knee_of([1, 2, 3], np.array([0.5, 0.5, 0.5])))
    assert np.isnan(knee_of([1, 2], np.array([0.1, 0.5])))


def test_nobody_beats_min_and_local_requests_beat_independent_ones(local):
    found = cache_curves(local(400, stays=0.8), ["lru", "lfu"], **LINK)
    assert (found.hit_rate <= found.hit_rate.sel(policy="min") + 1e-12).all()
    lru = found.hit_rate.sel(policy="lru").sel(capacity=[4, 6], method="nearest")
    assert (lru.sel(source="recorded") - lru.sel(source="independent") > 0.2).all()
    assert found.sizes["capacity"] <= 16
    assert (found.capacity.values[0], found.capacity.values[-1]) == (2, 16)
    assert found.hit_rate.isel(capacity=-1).sel(source="recorded").values.tolist() == pytest.approx([1 - 16 / 1600] * 3)


def test_processes_and_threads_find_what_one_finds(local):
    requests, heard = local(60, stays=0.8), []
    policies = ["lru", "lifo", "lfu:in_cache=True"]
    alone = cache_curves(requests, policies, [2, 5, 9], **LINK, jobs=1)
    together = cache_curves(
        requests, policies, [2, 5, 9], **LINK, jobs=2, on_progress=lambda done, total: heard.append((done, total))
    )
    assert together.equals(alone)
    assert heard[-1] == (24, 24)
    assert [done for done, _ in heard] == sorted(done for done, _ in heard)
    assert together.counted_by.values[2] == "general loop: lifo has no counter of its own"


def test_every_number_is_that_of_a_run_of_its_own(local):
    requests = local(80, stays=0.8)
    found = cache_curves(requests, ["lifo", "lru"], [3, 7], **LINK, jobs=1).sel(source="recorded")
    for policy in ("min", "lifo", "lru"):
        alone = count_requests(requests, policy, [3, 7])
        assert found.misses.sel(policy=policy).values.tolist() == alone.misses.tolist()


def test_independent_requests_keep_sizes_layers_and_load(local):
    requests = local(3000, stays=0.8)
    other = independent_requests(requests, seed=0)
    assert np.array_equal(other.page // 8, requests.page // 8)
    before, after = (np.bincount(one.page, minlength=16) for one in (requests, other))
    assert np.abs(before - after).max() < 0.03 * len(requests)
    assert not np.array_equal(other.page, independent_requests(requests, seed=1).page)


def test_wrong_numbers_are_refused():
    requests = Requests.of_sets(PAIRS)
    with pytest.raises(ValueError, match="bytes_per_second must be above 0, got 0; measure the link"):
        cache_curves(requests, block_bytes=1, bytes_per_second=0)
    with pytest.raises(ValueError, match="the smallest capacity must be at least 1, got 0"):
        cache_curves(requests, ["lru"], [0, 2], **LINK)
    with pytest.raises(ValueError, match="the requests are empty"):
        cache_curves(replace(Requests.of_sets([]), num_experts=4), **LINK)
    with pytest.raises(LookupError, match="has no 'nobody'"):
        cache_curves(requests, ["nobody"], [2], **LINK)
    with pytest.raises(ValueError, match="jobs must be at least 1"):
        cache_curves(requests, ["lru"], [2], **LINK, jobs=0)

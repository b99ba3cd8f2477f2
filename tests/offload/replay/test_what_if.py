"""A sweep over links, precisions, hosts and prefetchers: by hand, and cell by cell against single replays."""

import math
from dataclasses import replace

import numpy as np
import pytest

from workbench.core import Spec
from workbench.offload.compute.host_compute import ComputeCost, HostRule
from workbench.offload.replay.curves import cache_curves, independent_requests
from workbench.offload.replay.scene import Scene, replay
from workbench.offload.replay.what_if import what_if
from workbench.offload.requests import Requests
from workbench.offload.tiers.cost import LinkCost

PAIRS = [[0, 1], [2, 3], [0, 1], [2, 4], [0, 3], [1, 2]]
SLOW = LinkCost(start_seconds=0.5, bytes_per_second=100, source="assumed by the test")
FAST = LinkCost(start_seconds=0.5, bytes_per_second=200)


def test_links_and_precisions_by_hand():
    scenes = {"slow": Scene(block_bytes=100, cost=SLOW, layer_seconds=0.5), "fast": Scene(block_bytes=100, cost=FAST)}
    requests = Requests.of_sets(PAIRS)
    found = what_if(requests, scenes, ["lru"], [2, 3], precisions={"exact": 100, "half": 50, "third": 60}, jobs=1)
    # arXiv 2210.02775: LRU misses 12, 10, 7 and 5 times with 2, 3, 4 and 5 slots, the optimum 12, 8, 6 and 5 times.
    assert found.fits.values.tolist() == [[2, 3], [4, 5], [3, 5]]
    recorded = found.sel(source="recorded", prefetch="none", policy="lru")
    assert recorded.misses.sel(link="slow").values.tolist() == [[12, 10], [7, 5], [10, 5]]
    assert recorded.bytes.sel(precision="half", link="fast").values.tolist() == [350, 250]
    # six sets compute for 0.5 s each; a miss takes 0.5 s and 1 s for 100 bytes.
    assert recorded.seconds.sel(link="slow", precision="exact").values.tolist() == [3 + 12 * 1.5, 3 + 10 * 1.5]
    assert recorded.seconds.sel(link="fast", precision="half").values.tolist() == [7 * 0.75, 5 * 0.75]
    assert recorded.tokens_per_second.sel(link="fast", precision="half").values.tolist() == [6 / 5.25, 6 / 3.75]
    best = found.misses.sel(source="recorded", prefetch="none", policy="min", link="slow", precision="half")
    assert best.values.tolist() == [6, 5]


def test_it_says_that_it_predicts_and_from_what():
    found = what_if(Requests.of_sets(PAIRS), {"slow": Scene(block_bytes=100, cost=SLOW)}, ["lru"], [2, 3], jobs=1)
    assert "no time in here was measured" in found.attrs["predicted"]
    assert all("predicted" in found[name].attrs["long_name"] for name in ("bytes", "seconds", "tokens_per_second"))
    assert found.link_cost.values.tolist() == ["assumed by the test"]
    assert found.host_cost.values.tolist() == ["no tier in the host"]
    assert found.knee.dims == ("source", "policy", "prefetch", "link", "precision")


def host_rule(expert_bytes: int) -> HostRule:
    """One row computes in the host, two do not."""
    return HostRule(
        expert_bytes=expert_bytes,
        row_flops=2,
        link=LinkCost(bytes_per_second=expert_bytes / 3),
        host=ComputeCost(bytes_per_second=math.inf, flops_per_second=1),
        device=ComputeCost(bytes_per_second=math.inf, flops_per_second=math.inf),
    )


def machines() -> dict[str, Scene]:
    here = {"block_bytes": 100, "cost": SLOW, "layer_seconds": 0.25, "token_seconds": 0.125, "first_seconds": 0.5}
    host = {"host_capacity": 4, "host_cost": FAST}
    return {
        "disk": Scene(**here),
        "host": Scene(**here, **host, inclusive=True),
        "host computes": Scene(**here, **host, host_rule=host_rule(100)),
    }


@pytest.mark.parametrize("policy", ["min", "lru", "least_stale"])
@pytest.mark.parametrize("prefetch", [None, "markov", "oracle"])
def test_every_cell_is_a_replay_of_its_own(local, policy, prefetch):
    requests, scenes = local(40, stays=0.7), machines()
    null = independent_requests(requests, seed=3)
    found = what_if(requests, scenes, [policy], [4, 7], prefetchers=[prefetch], seed=3, jobs=1)
    for link, scene in scenes.items():
        sees = policy == "min" or prefetch == "oracle"
        for source, asked in (("recorded", requests), ("independent", null)):
            for capacity in (4, 7):
                cell = {"source": source, "policy": policy, "link": link, "capacity": capacity, "precision": "exact"}
                cell = found.sel(**cell, prefetch=prefetch or "none")
                if sees and scene.host_rule is not None:
                    assert np.isnan(cell.seconds)
                    continue
                guess = None if prefetch is None else Spec(prefetch)
                alone = replay(asked, policy=Spec(policy), prefetch=guess, capacity=capacity, scene=scene)
                assert float(cell.hit_rate) == pytest.approx(alone.ledger.hit_rate, abs=1e-12)
                assert (float(cell.misses), float(cell.bytes)) == (alone.ledger.misses, alone.ledger.moved_bytes)
                assert float(cell.seconds) == pytest.approx(alone.seconds, rel=1e-9)
                assert float(cell.tokens_per_second) == pytest.approx(alone.tokens_per_second, rel=1e-9)
                if scene.host_rule is not None:
                    assert alone.ledger.host_computed > 0


def test_the_room_in_the_host_is_bytes_too(local):
    scene = Scene(block_bytes=100, cost=SLOW, host_capacity=3, host_cost=FAST)
    requests = local(40, stays=0.7)
    found = what_if(requests, {"host": scene}, ["lru"], [4], precisions={"exact": 100, "half": 50}, jobs=1)
    half = Scene(block_bytes=50, cost=SLOW, host_capacity=6, host_cost=FAST)
    alone = replay(requests, policy=Spec("lru"), capacity=8, scene=half)
    cell = found.sel(source="recorded", policy="lru", prefetch="none", link="host", capacity=4, precision="half")
    assert (float(cell.bytes), float(cell.seconds)) == (alone.ledger.moved_bytes, pytest.approx(alone.seconds))


def test_processes_find_what_one_finds_and_curves_agree(local):
    requests, heard, scenes = local(40, stays=0.7), [], machines()
    sizes, asked = [3, 6, 9], ["lru", "lifo"]
    alone = what_if(requests, scenes, asked, sizes, jobs=1)
    together = what_if(
        requests, scenes, asked, sizes, jobs=2, on_progress=lambda done, total: heard.append((done, total))
    )
    assert together.equals(alone)
    # counts for the disk, replays for the hosts: the optimum is none of one that computes.
    assert heard[-1] == (2 * 3 * 3 + 2 * 3 * 3 + 2 * 2 * 3,) * 2
    curves = cache_curves(requests, asked, sizes, block_bytes=100, bytes_per_second=100, jobs=1)
    demand = alone.sel(link="disk", prefetch="none", precision="exact")
    for name in ("hit_rate", "misses", "bytes", "knee"):
        assert np.allclose(demand[name], curves[name], rtol=1e-12, equal_nan=True)


def test_a_faster_link_and_smaller_experts_are_never_slower(local):
    scenes = {
        name: Scene(cost=LinkCost(bytes_per_second=speed)) for name, speed in (("1x", 10), ("2x", 20), ("4x", 40))
    }
    found = what_if(local(200, stays=0.7), scenes, ["lru"], precisions={"exact": 64, "int8": 33, "int4": 18}, jobs=1)
    seconds = found.seconds.sel(prefetch="none")
    assert (seconds.diff("link") < 0).all() and (seconds.sel(source="recorded").diff("precision") < 0).all()
    assert (found.hit_rate <= found.hit_rate.sel(policy="min") + 1e-12).all()


def test_hints_of_a_recorded_text_are_none_for_independent_requests(local):
    requests = local(40, stays=0.7)
    ahead = [[int(page) for page in pages] for pages in [*list(requests.sets())[1:], []]]
    ahead = [pages if place % 2 == 0 else [] for place, pages in enumerate(ahead)]
    found = what_if(
        replace(requests, ahead=ahead), {"disk": Scene(cost=SLOW)}, ["lru"], [8], prefetchers=["next_layer"], jobs=1
    )
    cells = found.hit_rate.sel(policy="lru", prefetch="next_layer", link="disk", precision="exact", capacity=8)
    assert np.isnan(cells.sel(source="independent")) and cells.sel(source="recorded") > 0


def test_wrong_sweeps_are_refused():
    requests, scenes = Requests.of_sets(PAIRS), {"disk": Scene(block_bytes=100, cost=SLOW)}
    with pytest.raises(ValueError, match="got 12, 0 and 1"):
        what_if(requests, {}, ["lru"], [2])
    with pytest.raises(ValueError, match="experts that fit must be at least 1, got 0"):
        what_if(requests, scenes, ["lru"], [2], precisions={"exact": 100, "large": 201})
    with pytest.raises(ValueError, match="the smallest capacity must be at least 1, got 0"):
        what_if(requests, scenes, ["lru"], [0, 2])
    with pytest.raises(LookupError, match="has no 'nobody'"):
        what_if(requests, scenes, ["lru"], [2], prefetchers=["nobody"], jobs=1)
    with pytest.raises(ValueError, match="the rule is for 100 B, got 50 B for half"):
        what_if(requests, machines(), ["lru"], [2], precisions={"exact": 100, "half": 50}, jobs=1)

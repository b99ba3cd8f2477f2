"""The report: every number against the function or the count that it stands for, and how it is shown."""

import numpy as np
import pytest

from workbench.analysis.consistency import routing_consistency, segment_cache_hits
from workbench.offload.replay.cacheability import cacheability_of
from workbench.offload.replay.counters import count_requests
from workbench.offload.requests import Requests
from workbench.trace import synthetic_trace
from workbench.trace.convert import from_arrays


@pytest.fixture(scope="module")
def trace():
    return synthetic_trace(num_tokens=300, num_layers=3, num_experts=8, top_k=2, skew=0.8, locality=0.6)


@pytest.fixture(scope="module")
def report(trace):
    return cacheability_of(trace, miss_seconds=0.01)


def layers_of(trace):
    """Requests of each layer alone, written anew from the trace."""
    expert = trace["routing"]["expert"].values
    return [Requests.of_sets(layer.tolist(), num_experts=8) for layer in expert]


def test_hit_rates_are_those_of_a_cache_for_each_layer(trace, report):
    assert [level.multiple for level in report.levels] == [1, 2, 3]
    for level in report.levels:
        for rate, policy in ((level.lru, "lru"), (level.optimum, "min")):
            hits = sum(count_requests(one, policy, [2 * level.multiple]).hits[0] for one in layers_of(trace))
            assert rate == pytest.approx(hits / 1800)
        assert level.ratio == pytest.approx(level.lru / level.optimum)
        assert level.lru <= level.optimum


def test_consistency_is_that_of_the_analysis(trace, report):
    srp = routing_consistency(trace, level="model")
    assert (report.srp, report.srp_by_chance) == (pytest.approx(srp.item()), pytest.approx(srp.by_chance.item()))
    assert report.srp > report.srp_by_chance + 0.05
    sch = segment_cache_hits(trace).sel(policy="sch", slots=4)
    assert report.levels[1].sch == pytest.approx(sch.mean().item())
    assert report.levels[1].sch_by_chance == pytest.approx(sch.by_chance.mean().item())


def test_the_budget_is_counted_and_priced(trace, report):
    budget = report.budget
    assert (budget.even, sum(budget.slots)) == ((4, 4, 4), 12)
    for slots, misses in ((budget.slots, budget.misses), (budget.even, budget.even_misses)):
        alone = zip(layers_of(trace), slots, strict=True)
        assert misses == sum(int(count_requests(one, "lru", [size]).misses[0]) for one, size in alone)
    assert budget.saved_seconds == pytest.approx((budget.even_misses - budget.misses) * 0.01)
    assert cacheability_of(trace, miss_seconds=0.01, slots=24).budget.misses == 24


def test_a_layer_that_needs_less_gives_to_one_that_needs_more():
    generator = np.random.default_rng(0)
    expert = np.stack([np.repeat([[0, 1]], 200, 0), generator.random((200, 8)).argsort(-1)[:, :2]], 1)
    found = cacheability_of(from_arrays(np.zeros(200, np.int64), expert, num_experts=8), miss_seconds=1).budget
    assert found.slots == (2, 6)
    assert found.saved_seconds > 0


def test_counts_stand_behind_the_numbers(report):
    text = report.to_text()
    assert str(report) == text
    assert text.startswith("300 decode tokens, 3 layers; routers: synthetic; 1 sequences\n")
    assert "of 1800 requests, even load 10.0%" in text
    assert f"{1800 - report.first_uses} reuses; {report.first_uses} first uses" in text
    assert f"above it {report.srp - report.srp_by_chance:+.3f}; 285 windows of 300 tokens" in text
    assert "cache of 3 x K" in text
    assert "s of stall at 0.01 s per miss; 300 tokens" in text
    assert report.first_uses <= 24


def test_the_html_is_short_even_for_many_layers():
    wide = synthetic_trace(num_tokens=30, num_layers=90, num_experts=16, top_k=4)
    shown = cacheability_of(wide, miss_seconds=0.01)._repr_html_()
    assert len(shown.encode()) < 5000
    assert "saved over an even split" in shown


def test_a_short_text_has_no_srp_and_says_so():
    found = cacheability_of(synthetic_trace(num_tokens=5, num_layers=1), miss_seconds=0)
    assert np.isnan(found.srp)
    assert "unknown: no sequence of 5 tokens is as long" in found.to_text()


def test_independent_experts_are_at_chance():
    found = cacheability_of(synthetic_trace(num_tokens=2000, num_layers=1, num_experts=16, skew=0), miss_seconds=0)
    assert abs(found.srp - found.srp_by_chance) < 0.02
    assert all(abs(level.sch - level.sch_by_chance) < 0.03 for level in found.levels)
    assert found.hottest_share == pytest.approx(0.1, abs=0.02)
    assert found.gini < 0.1


def test_wrong_input_is_refused(trace):
    with pytest.raises(ValueError, match="3 layers with at least 2 slots each need 6 slots, got 5"):
        cacheability_of(trace, miss_seconds=0, slots=5)
    with pytest.raises(ValueError, match="miss_seconds must be at least 0"):
        cacheability_of(trace, miss_seconds=-1)
    nothing = from_arrays(np.zeros(3, np.int64), np.full((3, 1, 2), -1), num_experts=4)
    with pytest.raises(LookupError, match="no token asks for an expert in 3 prefill tokens"):
        cacheability_of(nothing, miss_seconds=0)

"""Load over steps, by hand and by counting."""

import numpy as np
import pytest

from workbench.analysis import dead_fraction, dropped_fraction, expert_load, load_variation, max_violation, only
from workbench.trace import synthetic_trace
from workbench.trace.schema import empty_trace


def counted(step, *counts, **fields):
    """A training step of one layer in which expert i is asked for by counts[i] tokens."""
    chosen = [[expert] for expert, count in enumerate(counts) for _ in range(count)]
    return {"expert": [chosen], "num_experts": len(counts), "step": step} | fields


def test_the_violation_of_the_paper_is_found(traced):
    trace = traced(counted(1, 5, 2, 1, 0))
    assert expert_load(trace).values.tolist() == [[[0.625, 0.25, 0.125, 0.0]]]
    assert max_violation(trace).item() == 1.5
    assert load_variation(trace).item() == pytest.approx(np.std([5, 2, 1, 0]) / 2)
    assert dead_fraction(trace).item() == 0.25


def test_an_even_load_violates_nothing(traced):
    trace = traced(counted(1, 3, 3, 3))
    assert [f(trace).item() for f in (max_violation, load_variation, dead_fraction)] == pytest.approx([0, 0, 0])
    assert max_violation(traced(counted(1, 0, 0, 0, 7))).item() == pytest.approx(3)


def test_a_window_weighs_steps_by_their_tokens(traced):
    trace = traced(counted(1, 1, 0), counted(2, 0, 3), counted(3, 2, 0))
    assert expert_load(trace, window=2).values[:, 0].tolist() == [[1, 0], [0.25, 0.75], [0.4, 0.6]]
    assert np.allclose(expert_load(trace, window=None).values[:, 0], [[1, 0], [0.25, 0.75], [0.5, 0.5]])
    assert dead_fraction(trace, window=2).values.ravel().tolist() == [0.5, 0, 0]
    assert max_violation(trace, window=None).values.ravel().tolist() == pytest.approx([1, 0.5, 0])


def test_an_expert_that_went_idle_is_dead_in_the_window(traced):
    steps = [counted(1, 3, 1)] + [counted(step, 7, 0) for step in range(2, 6)]
    assert dead_fraction(traced(*steps), window=2).values.ravel().tolist() == [0, 0, 0.5, 0.5, 0.5]
    assert expert_load(traced(*steps), window=2).values[2:, 0, 1].tolist() == [0, 0, 0]


def test_a_swap_to_more_experts_leaves_none_before_it(traced):
    trace = traced(counted(1, 1, 1), counted(2, 1, 1, 2), counted(3, 0, 0, 4))
    load = expert_load(trace).values[:, 0]
    assert np.isnan(load[0, 2])
    assert load[1].tolist() == [0.25, 0.25, 0.5]
    assert dead_fraction(trace).values.ravel() == pytest.approx([0, 0, 2 / 3])
    assert max_violation(trace).values.ravel().tolist() == pytest.approx([0, 0.5, 2])
    wide = expert_load(trace, window=2).values[:, 0]
    assert np.isnan(wide[0, 2])
    assert np.allclose(wide[1:], [[2 / 6, 2 / 6, 2 / 6], [1 / 8, 1 / 8, 6 / 8]])


def test_drops_are_a_share_of_what_was_asked_for(traced):
    kept = [[[True], [False], [True], [True]]]
    trace = traced(counted(1, 2, 2, kept=kept), counted(2, 6, 6))
    assert dropped_fraction(trace).values.ravel().tolist() == [0.25, 0]
    assert dropped_fraction(trace, window=None).values.ravel().tolist() == [0.25, 1 / 16]
    assert expert_load(trace).values[0, 0].tolist() == [0.5, 0.5]


def test_a_step_without_work_is_unknown(traced):
    trace = traced({"expert": [[[-1], [-1]]], "num_experts": 2}, counted(2, 1, 3))
    for measure in (expert_load, load_variation, max_violation, dead_fraction, dropped_fraction):
        assert np.isnan(measure(trace).values[0]).all()
        assert np.isfinite(measure(trace, window=None).values[1]).all()
    assert expert_load(trace, window=None).values[1, 0].tolist() == [0.25, 0.75]


@pytest.mark.parametrize("window", [1, 3, None, 100])
def test_windows_agree_with_counting(window):
    trace = synthetic_trace(num_tokens=30, num_layers=2, num_experts=5, top_k=2)
    load, dead = expert_load(trace, window=window), dead_fraction(trace, window=window)
    violation, variation = max_violation(trace, window=window), load_variation(trace, window=window)
    expert = trace["routing"]["expert"].values
    for step in range(30):
        start = 0 if window is None else max(step + 1 - window, 0)
        for layer in range(2):
            counts = [0] * 5
            for token in range(start, step + 1):
                for chosen in expert[layer, token]:
                    counts[chosen] += 1
            place = {"step": step, "layer": layer}
            assert load.isel(place).values == pytest.approx(np.array(counts) / sum(counts))
            assert dead.isel(place) == counts.count(0) / 5
            assert violation.isel(place) == pytest.approx(max(counts) / np.mean(counts) - 1)
            assert variation.isel(place) == pytest.approx(np.std(counts) / np.mean(counts))


def test_one_step_at_a_time_is_what_the_trace_recorded():
    trace = synthetic_trace(num_tokens=20)
    assert np.allclose(load_variation(trace), trace["load"]["cv"])
    assert np.allclose(dead_fraction(trace), trace["load"]["dead_fraction"])
    assert only(trace, steps=range(5)).moe.load().equals(trace.moe.load().isel(step=slice(5)))


def test_phases_stay_apart(traced):
    trace = traced(counted(1, 1, 0), counted(1, 0, 1, phase="decode"))
    assert expert_load(trace, phase="decode").values.tolist() == [[[0, 1]]]
    assert expert_load(trace, phase="train").attrs["over"] == "1 train tokens in 1 rows of load, 1 rows at a time"
    with pytest.raises(ValueError, match="never mixed, and the trace holds 1 decode, 1 train rows of load; say phase="):
        max_violation(trace)


def test_what_is_missing_is_said():
    with pytest.raises(LookupError, match="the trace has no /load, it holds nothing; record forward passes"):
        dead_fraction(empty_trace())
    with pytest.raises(ValueError, match="window must be at least 1, got 0; say None for everything"):
        expert_load(synthetic_trace(num_tokens=2), window=0)

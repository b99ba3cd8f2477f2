"""Consistency of routing: worked numbers, every fixed choice tried, the null, and the rates of the paper's example."""

import itertools

import numpy as np
import pytest
from workbench_kernels import stack_hits

from workbench.analysis.consistency import independent_streams, routing_consistency, segment_cache_hits
from workbench.analysis.streams import expert_streams
from workbench.trace import synthetic_trace
from workbench.trace.convert import from_arrays

TEXT = [0, 1, 0, 2, 0, 1, 3, 0, 1, 2]


def trace_of(expert, num_experts, *, sequence=None, kept=None):
    """A prefill whose tokens ask for `expert`: token, layer, slot; or token, slot of one layer."""
    expert = np.asarray(expert)
    expert = expert[:, None] if expert.ndim == 2 else expert
    return from_arrays(
        np.zeros(len(expert), np.int64), expert, num_experts=num_experts, kept=kept,
        sequence=None if sequence is None else np.asarray(sequence),
    )  # fmt: skip


def chosen(text):
    """Choices between two experts: 1 asks for the first, 0 for the second."""
    return [[0 if use == "1" else 1] for use in text]


def drawn(tokens, experts, top_k, seed=0):
    return np.random.default_rng(seed).random((tokens, experts)).argsort(-1)[:, :top_k]


def test_six_tokens_as_worked_by_hand():
    found = routing_consistency(trace_of(chosen("110010"), 2), window=2, level="expert")
    assert found.values.tolist() == [[pytest.approx(10 / 13)] * 2]
    assert found.alpha.values.tolist() == [[1, 1]]
    assert found.rho.values.tolist() == [[pytest.approx(1.6)] * 2]
    for level in ("layer", "model"):
        pooled = routing_consistency(trace_of(chosen("110010"), 2), window=2, level=level)
        assert (pooled.values.item(), pooled.rho.item()) == (pytest.approx(10 / 13), pytest.approx(1.6))
    assert found.attrs["over"].endswith("1 sequences; 5 windows of 2 tokens")


def test_experts_that_are_always_on_are_found_at_once():
    found = routing_consistency(trace_of([[0, 1]] * 20, 2), window=16)
    assert (found.item(), found.rho.item(), found.excess.item()) == (1, 1, 0)


def test_a_window_of_one_token_is_the_router_itself():
    found = routing_consistency(trace_of(drawn(50, 6, 2), 6), window=1)
    assert (found.item(), found.alpha.item(), found.rho.item()) == (1, 1, 1)


@pytest.mark.parametrize("window", [1, 2, 3, 4])
def test_no_choice_that_is_fixed_in_windows_is_better(window):
    for seed in range(4):
        expert = drawn(5, 3, 1, seed)
        uses = (expert[:, :, None] == np.arange(3)).any(1)
        pairs = [int(uses[first : first + window, one].sum()) for first in range(5 - window + 1) for one in range(3)]
        best = max(
            2 * sum(f for f, on in zip(pairs, pattern, strict=True) if on) / (window * sum(pattern) + sum(pairs))
            for pattern in itertools.product((0, 1), repeat=len(pairs))
        )
        found = routing_consistency(trace_of(expert, 3), window=window)
        assert found.item() == pytest.approx(best)
        assert found.alpha.item() == np.ceil(window / 2 * best - 1e-9)


def test_it_is_at_least_that_of_all_experts_on():
    found = routing_consistency(trace_of(drawn(400, 8, 3), 8), window=16)
    assert found.item() >= 2 * (3 / 8) / (1 + 3 / 8)


def test_windows_end_with_their_sequence_and_pools_are_not_means():
    expert = [[0]] * 4 + [[1]] * 4
    found = routing_consistency(trace_of(expert, 2, sequence=[0] * 4 + [1] * 4), window=4)
    assert (found.item(), found.attrs["windows"]) == (1, 2)
    assert routing_consistency(trace_of(expert, 2), window=4).item() < 1
    found = routing_consistency(trace_of([[0], [0], [0], [1]], 2), window=2, level="expert")
    pooled = routing_consistency(trace_of([[0], [0], [0], [1]], 2), window=2, level="layer")
    assert pooled.item() != pytest.approx(found.mean().item())


@pytest.mark.parametrize(("experts", "top_k", "expected"), [(64, 4, 0.237), (64, 8, 0.321), (16, 4, 0.452)])
def test_independent_tokens_reach_the_null_and_no_more(experts, top_k, expected):
    found = routing_consistency(trace_of(drawn(6000, experts, top_k), experts), window=16)
    assert found.by_chance_even.item() == pytest.approx(expected, abs=5e-4)
    assert found.by_chance.item() == pytest.approx(expected, abs=5e-3)
    assert found.item() == pytest.approx(expected, abs=6e-3)


def test_shuffled_tokens_fall_to_the_null_and_keep_their_load():
    trace = synthetic_trace(num_tokens=4000, num_layers=1, num_experts=16, top_k=2, skew=0.8, locality=0.8)
    before = routing_consistency(trace)
    expert = trace["routing"]["expert"].values[0]
    after = routing_consistency(trace_of(np.random.default_rng(0).permutation(expert), 16))
    assert before.excess.item() > 0.2
    assert after.item() == pytest.approx(after.by_chance.item(), abs=0.01)
    assert after.by_chance.item() == pytest.approx(before.by_chance.item())
    assert after.by_chance.item() > after.by_chance_even.item()


def test_the_interval_is_that_of_resampled_sequences():
    sequences = [drawn(30, 6, 2, seed) for seed in range(4)] + [np.tile([[0, 1]], (30, 1))] * 3
    label = np.repeat(np.arange(7), 30)
    trace = trace_of(np.concatenate(sequences), 6, sequence=label)
    found = routing_consistency(trace, window=4, resamples=300, seed=5)
    draws = np.random.default_rng(5).multinomial(7, [1 / 7] * 7, 300)
    again = []
    for times in draws[:60]:
        expert = np.concatenate([sequences[at] for at in range(7) for _ in range(times[at])])
        again.append(routing_consistency(trace_of(expert, 6, sequence=np.repeat(np.arange(7), 30)), window=4).item())
    sixty = routing_consistency(trace, window=4, resamples=60, seed=5)
    assert found.low.item() < found.item() < found.high.item()
    assert np.std(again) > 0.02
    assert sixty.high.item() - sixty.low.item() == pytest.approx(
        np.subtract(*np.quantile(again, [0.975, 0.025])), rel=0.4
    )
    assert np.isnan(routing_consistency(trace_of(drawn(30, 6, 2), 6), window=4).low.item())


def test_experts_that_do_not_exist_are_unknown_and_idle_ones_zero():
    found = routing_consistency(trace_of([[0], [0], [0]], 3), window=2, level="expert")
    assert found.values.tolist() == [[1, 0, 0]]


def test_the_rates_of_a_short_text_are_those_of_the_paper():
    trace = trace_of([[one] for one in TEXT], 4)
    one, two = (segment_cache_hits(trace, window=window).isel(layer=0) for window in (1, 2))
    assert two.sel(policy="lru").values.tolist() == pytest.approx([0.1, 0.4, 0.8, 1])
    assert two.sel(policy="optimum").values.tolist() == pytest.approx([0.1, 0.5, 0.8, 1])
    assert one.sel(policy="sch").values.tolist() == one.sel(policy="lru").values.tolist()
    assert two.sel(policy="sch").values.tolist() == two.sel(policy="optimum").values.tolist()
    strict = segment_cache_hits(trace, window=2, strict=True).isel(layer=0)
    assert (two - strict).values == pytest.approx(np.tile([0.1, 0.2, 0.3, 0.4], (4, 1)))


def naive(tokens, capacity, window, num_experts):
    """The counting of the paper's code for one capacity, written out: tokens judged before, experts one by one."""
    cache, seen, last, hits, clock = [], set(), {}, 0, 0
    for at, token in enumerate(tokens):
        for one in token:
            hits += one in cache or (one not in seen and len(seen) < capacity)
            seen.add(one)
        done = set()
        for one in token:
            if one not in cache:
                if len(cache) == capacity:
                    ahead = [x for other in tokens[at : at + window] for x in other]
                    cache.remove(min(cache, key=lambda x: (ahead.count(x) - (x in done), last[x])))
                cache.append(one)
            clock += 1
            last[one] = clock
            done.add(one)
    return hits / sum(map(len, tokens))


@pytest.mark.parametrize("window", [1, 2, 4, 9])
def test_every_capacity_is_that_of_the_papers_counting(window):
    for seed in range(5):
        expert = drawn(40, 7, 2, seed)
        found = segment_cache_hits(trace_of(expert, 7), window=window).sel(policy="sch").isel(layer=0)
        expected = [naive(expert.tolist(), capacity, window, 7) for capacity in range(1, 8)]
        assert found.values.tolist() == pytest.approx(expected)


def test_more_room_and_more_sight_never_hurt_and_nobody_beats_the_optimum():
    trace = trace_of(drawn(300, 12, 3), 12)
    found = segment_cache_hits(trace, window=300)
    assert (found.diff("slots").values >= 0).all()
    assert (found <= found.sel(policy="optimum") + 1e-12).all()
    assert found.isel(slots=-1).values.tolist() == [[1]] * 4
    assert found.rho.values.tolist() == pytest.approx([slots / 3 for slots in range(1, 13)])


def test_one_cache_for_all_layers_asks_for_all_of_a_token_at_once():
    expert = np.stack([drawn(60, 5, 2, 1), drawn(60, 5, 2, 2)], 1)
    found = segment_cache_hits(trace_of(expert, 5), level="model", window=4)
    pages = (expert + np.array([0, 5])[:, None]).reshape(60, 4)
    assert found.sizes == {"policy": 4, "slots": 10}
    assert found.sel(policy="sch").values.tolist() == pytest.approx(
        [naive(pages.tolist(), capacity, 4, 10) for capacity in range(1, 11)]
    )
    assert found.rho.values[3] == 1


def test_by_chance_keeps_the_load_and_loses_the_locality():
    trace = synthetic_trace(num_tokens=2000, num_layers=2, num_experts=16, top_k=2, skew=0.5, locality=0.8)
    streams = expert_streams(trace)
    other = independent_streams(streams, seed=1)
    for place in range(2):
        before, after = (np.bincount(one.expert[place].ravel(), minlength=16) for one in (streams, other))
        assert np.abs(before - after).max() < 0.05 * before.sum()
    found = segment_cache_hits(trace).sel(policy="lru", slots=4)
    assert (found - found.by_chance > 0.2).all()
    even = segment_cache_hits(trace_of(drawn(3000, 16, 2), 16)).sel(policy="lru", slots=4)
    assert even.item() == pytest.approx(even.by_chance.item(), abs=0.03)


def test_dropped_assignments_are_not_asked_for():
    expert = np.array([[[0, 1]], [[0, 1]], [[0, 1]]])
    kept = np.array([[[True, False]]] * 3)
    found = routing_consistency(trace_of(expert, 2, kept=kept), window=2, level="expert")
    assert found.values.tolist() == [[1, 0]]
    page, start = expert_streams(trace_of(expert, 2, kept=kept)).sets(0)
    assert (page.tolist(), start.tolist()) == ([0, 0, 0], [0, 1, 2, 3])
    assert stack_hits(page, start, np.array([0, 3]), num_pages=2, policy="lru")[0].sum() == 2


def test_a_layer_without_requests_has_no_rate():
    expert = np.array([[[0], [-1]]] * 4)
    assert np.isnan(segment_cache_hits(trace_of(expert, 2)).sel(layer=1)).all()
    assert routing_consistency(trace_of(expert, 2), window=2).values.tolist() == [1, 0]


def test_what_cannot_be_is_said():
    trace = trace_of(drawn(5, 4, 1), 4)
    with pytest.raises(LookupError, match="no sequence is as long as window=16, the longest has 5 tokens; use a small"):
        routing_consistency(trace)
    with pytest.raises(ValueError, match="window must be at least 1, got 0"):
        segment_cache_hits(trace, window=0)

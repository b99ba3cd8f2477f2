"""Experts that go together, by hand, by loops, and by what independence means."""

import numpy as np
import pytest

from workbench.analysis import co_activation, layer_affinity, layer_transition, pair_affinity
from workbench.trace import from_arrays, synthetic_trace

NAN = np.nan


def test_pairs_of_four_tokens(traced):
    trace = traced({"expert": [[[0, 1], [1, 0], [0, 2], [3, -1]]]})
    found = co_activation(trace).values[0]
    expected = [[0.75, 0.5, 0.25, 0], [0.5, 0.5, 0, 0], [0.25, 0, 0.25, 0], [0, 0, 0, 0.25]]
    assert found.tolist() == expected


def test_two_cliques_meet_twice_as_often_as_expected(traced):
    # experts 0 and 1 go together, and 2 and 3: of the three partners of each, one takes all.
    affinity = pair_affinity(traced({"expert": [[[0, 1], [2, 3]] * 4]})).values[0]
    assert np.allclose(affinity, [[NAN, 3, 0, 0], [3, NAN, 0, 0], [0, 0, NAN, 3], [0, 0, 3, NAN]], equal_nan=True)


def test_every_pair_once_is_independent(traced):
    pairs = [[a, b] for a in range(5) for b in range(a)]
    affinity = pair_affinity(traced({"expert": [pairs], "num_experts": 5}))
    assert np.allclose(affinity.values[0][~np.eye(5, dtype=bool)], 1)
    assert np.allclose(affinity["expected"].values[0][~np.eye(5, dtype=bool)], 1)


@pytest.mark.parametrize("skew", [0.0, 1.0])
def test_independent_choices_have_affinity_one(skew):
    generator = np.random.default_rng(0)
    rate = (np.arange(6) + 1.0) ** -skew * 0.5
    tokens = 20000
    mask = generator.random((tokens, 1, 6)) < rate
    expert = np.where(mask, np.arange(6), -1)
    trace = from_arrays(np.zeros(tokens, int), expert, num_experts=6)
    affinity = pair_affinity(trace)
    apart = ~np.eye(6, dtype=bool)
    error = np.abs(affinity.values[0] - 1)[apart]
    assert (error < 5 / np.sqrt(affinity["expected"].values[0][apart])).all()


def test_a_fixed_number_of_random_experts_has_affinity_one():
    # the product of the rates would say one half here, because one expert takes the place of another.
    trace = synthetic_trace(num_tokens=20000, num_layers=1, num_experts=6, top_k=2, skew=0, phase="prefill")
    affinity = pair_affinity(trace)
    apart = ~np.eye(6, dtype=bool)
    assert np.abs(affinity.values[0][apart] - 1).max() < 5 / np.sqrt(affinity["expected"].values[0][apart].min())


def test_what_is_expected_has_the_partners_of_the_trace(traced, draws):
    trace = traced({"expert": draws(2, 60, 6, 3), "num_experts": 6})
    pairs = co_activation(trace).values * 60
    pairs[:, np.arange(6), np.arange(6)] = 0
    expected = pair_affinity(trace)["expected"].values
    assert np.allclose(expected.sum(-1), pairs.sum(-1), rtol=1e-6)
    ratio = expected[:, 0, 2] * expected[:, 1, 3] / (expected[:, 0, 3] * expected[:, 1, 2])
    assert np.allclose(ratio, 1)


def test_one_expert_per_token_expects_no_pair(traced):
    assert np.isnan(pair_affinity(traced({"expert": [[[0], [1]]]}))).all()


def test_an_expert_of_every_token_is_expected_there(traced):
    affinity = pair_affinity(traced({"expert": [[[0, 1], [0, 2], [0, 3]] * 5]})).values[0]
    assert np.allclose(affinity[0, 1:], 1, atol=0.01)
    assert np.allclose(np.nan_to_num(affinity[1:, 1:]), 0, atol=0.01)


def test_an_expert_named_twice_serves_a_token_once(traced):
    assert co_activation(traced({"expert": [[[1, 1], [1, 0]]]})).values[0, :2, :2].tolist() == [[0.5, 0.5], [0.5, 1]]


def test_random_pairs_agree_with_loops(traced, draws):
    expert = draws(2, 50, 5, 3, seed=4)
    found = co_activation(traced({"expert": expert, "num_experts": 5}))
    for layer in range(2):
        for a in range(5):
            for b in range(5):
                both = sum(a in token and b in token for token in expert[layer])
                assert found.values[layer, a, b] == pytest.approx(both / 50)


def test_where_the_tokens_of_an_expert_go(traced):
    # ten tokens of the paper's kind: one expert in each of two layers.
    pairs = [(0, 2)] * 2 + [(0, 3)] + [(1, 3)] * 2 + [(2, 0)] * 2 + [(3, 1)] * 2 + [(3, 0)]
    trace = traced({"expert": [[[a] for a, _ in pairs], [[b] for _, b in pairs]]})
    found = layer_transition(trace)
    third = 1 / 3
    expected = [[0, 0, 2 * third, third], [0, 0, 0, 1], [1, 0, 0, 0], [third, 2 * third, 0, 0]]
    assert np.allclose(found.values, [expected])
    assert found["tokens"].values.tolist() == [[3, 2, 2, 3]]
    assert (found["layer"].values.tolist(), found["next_layer"].values.tolist()) == ([0], [1])
    assert layer_affinity(trace).sel(layer=0, expert=1, next_expert=3) == pytest.approx(2 / (2 * 3 / 10))


def test_a_token_with_several_experts_counts_once(traced):
    found = layer_transition(traced({"expert": [[[0, 1], [0, -1]], [[2, -1], [2, 3]]]}))
    assert found["tokens"].values[0].tolist() == [1.5, 0.5, 0, 0]
    assert np.allclose(found.values[0, :2], [[0, 0, 2 / 3, 1 / 3], [0, 0, 1, 0]])
    assert np.isnan(found.values[0, 2:]).all()


def test_a_token_without_expert_in_one_layer_goes_nowhere(traced):
    found = layer_transition(traced({"expert": [[[0], [0]], [[-1], [1]]]}))
    assert found["tokens"].values[0, 0] == 1
    assert found.values[0, 0].tolist() == [0, 1, 0, 0]


def test_random_transitions_agree_with_loops(traced, draws):
    expert = draws(3, 50, 5, 2, seed=5)
    found = layer_transition(traced({"expert": expert, "num_experts": 5}))
    for layer in range(2):
        flow = np.zeros((5, 5))
        for here, there in zip(expert[layer], expert[layer + 1], strict=True):
            pairs = [(a, b) for a in here for b in there if a >= 0 and b >= 0]
            for a, b in pairs:
                flow[a, b] += 1 / len(pairs)
        assert np.allclose(found.values[layer], flow / flow.sum(1, keepdims=True))


def test_layers_that_know_nothing_of_each_other_have_affinity_one():
    trace = synthetic_trace(num_tokens=20000, num_layers=3, num_experts=4, skew=0.5, phase="prefill")
    affinity = layer_affinity(trace)
    assert (np.abs(affinity.values - 1) < 5 / np.sqrt(affinity["expected"].values / 4)).all()


def test_a_swap_to_more_experts_widens_the_table_and_layers_keep_their_own(traced):
    narrow = {"expert": [[[0]], [[1]]], "num_experts": 2}
    wide = {"expert": [[[0]]], "num_experts": 2, "step": 2, "also": [{"expert": [[], [[4]]], "num_experts": 5}]}
    trace = traced(narrow, wide)
    found = layer_transition(trace)
    assert found.sizes == {"layer": 1, "expert": 5, "next_expert": 5}
    assert np.allclose(found.values[0, 0], [0, 0.5, 0, 0, 0.5])
    assert np.isnan(co_activation(trace).sel(layer=0).values[2:]).all()
    assert np.isfinite(co_activation(trace).sel(layer=1).values).all()


def test_a_single_layer_has_no_next():
    with pytest.raises(LookupError, match="two MoE layers are needed to go from one to the next, got 1"):
        layer_transition(synthetic_trace(num_tokens=3, num_layers=1))

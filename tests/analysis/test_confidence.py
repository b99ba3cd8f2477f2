"""Entropy, largest weight and margin, by hand and by loops."""

import math

import numpy as np
import pytest

from workbench.analysis import choice_entropy, choice_margin, top_weight
from workbench.trace import synthetic_trace

PROB = [[[0.5, 0.25, 0.25, 0.0], [0.0, 0.0, 1.0, 0.0], [0.25, 0.25, 0.25, 0.25]]]
EXPERT = [[[0, 1], [2, -1], [3, 0]]]
WEIGHT = [[[0.5, 0.25], [1.0, 0.0], [0.25, 0.75]]]


def test_certainty_by_hand(traced):
    trace = traced({"expert": EXPERT, "weight": WEIGHT, "prob": PROB})
    thirds = math.log(3) - 2 / 3 * math.log(2)
    quarters = math.log(4) - 3 / 4 * math.log(3)
    assert choice_entropy(trace).values[0] == pytest.approx([thirds, 0, quarters])
    assert choice_entropy(trace, of="prob").values[0] == pytest.approx([1.5 * math.log(2), 0, math.log(4)])
    assert top_weight(trace).values[0] == pytest.approx([0.5, 1, 0.75])
    assert choice_margin(trace).values[0] == pytest.approx([0, 1, 0])
    assert choice_margin(trace).attrs["missing"] == "none"


def test_a_choice_against_the_probability_has_a_margin_below_zero(traced):
    trace = traced({"expert": [[[1]]], "prob": [[[0.7, 0.2, 0.1, 0.0]]]})
    assert choice_margin(trace).item() == pytest.approx(-0.5)


def test_a_token_that_takes_all_or_none_has_no_margin(traced):
    trace = traced({"expert": [[[0, 1], [-1, -1]]], "prob": [[[0.5, 0.5]] * 2], "num_experts": 2})
    assert np.isnan(choice_margin(trace).values).all()
    assert np.isnan(top_weight(trace).values[0]).tolist() == [False, True]
    assert np.isnan(choice_entropy(trace).values[0]).tolist() == [False, True]
    assert choice_entropy(trace, of="prob").values[0] == pytest.approx(math.log(2))


def test_an_extra_expert_without_score_is_no_part_of_the_margin(traced):
    trace = traced({"expert": [[[0, 4], [4, -1]]], "num_experts": 5, "prob": [[[0.6, 0.3, 0.1, 0.0]] * 2]})
    margin = choice_margin(trace).values[0]
    assert margin[0] == pytest.approx(0.3)
    assert np.isnan(margin[1])


def test_missing_probabilities_are_unknown_and_said(traced):
    trace = traced(
        {"expert": [[[0]]], "prob": [[[0.75, 0.25]]], "num_experts": 2},
        {"expert": [[[1]]], "step": 2, "router": "hash", "num_experts": 3},
    )
    margin = choice_margin(trace)
    assert margin.values[0, 0] == 0.5
    assert np.isnan(margin.values[0, 1])
    assert margin.attrs["missing"] == "1 of 2 decisions have no probabilities; record with Sampling(prob=True)"
    bare = synthetic_trace(num_tokens=3, num_layers=2)
    assert np.isnan(choice_entropy(bare, of="prob")).all()
    assert choice_margin(bare).attrs["missing"].startswith("6 of 6 decisions have no probabilities")
    assert "missing" not in choice_entropy(bare).attrs


def test_random_tokens_agree_with_loops(traced, draws):
    generator = np.random.default_rng(3)
    expert = draws(2, 40, 6, 3, seed=2)
    prob = generator.dirichlet(np.ones(6), size=(2, 40)).astype(np.float32)
    weight = (np.array(expert) >= 0) * generator.random((2, 40, 3)).astype(np.float32)
    trace = traced({"expert": expert, "prob": prob.tolist(), "weight": weight.tolist(), "num_experts": 6})
    entropy, scores, margin = choice_entropy(trace), choice_entropy(trace, of="prob"), choice_margin(trace)
    for layer in range(2):
        for token in range(40):
            chosen = [e for e in expert[layer][token] if e >= 0]
            of_token = prob[layer, token].tolist()
            assert scores.values[layer, token] == pytest.approx(-sum(p * math.log(p) for p in of_token), rel=1e-5)
            if not chosen:
                assert np.isnan(entropy.values[layer, token])
                continue
            rest = [p for e, p in enumerate(of_token) if e not in chosen]
            assert margin.values[layer, token] == pytest.approx(min(of_token[e] for e in chosen) - max(rest), abs=1e-6)
            held = [w for w in weight[layer, token].tolist() if w > 0]
            wanted = -sum(w / sum(held) * math.log(w / sum(held)) for w in held)
            assert entropy.values[layer, token] == pytest.approx(wanted, abs=1e-6)


def test_tokens_keep_what_is_known_of_them(traced):
    trace = traced({"expert": EXPERT, "ids": [5, 6, 7], "domain": ["a", "b", "a"]})
    result = top_weight(trace)
    assert result["token_id"].values.tolist() == [5, 6, 7]
    assert result["domain"].values.tolist() == ["a", "b", "a"]
    assert result.isel(token=result["domain"].values == "a").sizes["token"] == 2


def test_unknown_scores_are_refused():
    with pytest.raises(LookupError, match="no tokens with routing of train; it holds 3 decode"):
        top_weight(synthetic_trace(num_tokens=3), phase="train")

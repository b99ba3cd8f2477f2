"""A predictor that learns what can be learned, and claims nothing where there is nothing."""

import json
from math import log

import numpy as np
import pytest
import torch

from workbench.offload.path_predictor import load_path_predictor, train_path_predictor
from workbench.trace.convert import from_arrays
from workbench.trace.schema import Trace

LAYERS, EXPERTS, TOKENS, WORDS = 2, 8, 1200, 16


def routed(expert_of, *, tokens: int = TOKENS, seed: int = 0, sequences: int = 1) -> Trace:
    """Words at random, and two layers of experts that a function of the word and the one before it names."""
    generator = np.random.default_rng(seed)
    ids = generator.integers(0, WORDS, tokens)
    sequence = np.arange(tokens) * sequences // tokens
    before = np.concatenate([[0], ids[:-1]])
    expert = np.stack([expert_of(layer, ids, before, generator) for layer in range(LAYERS)], 1)
    return from_arrays(ids, expert[:, :, None], num_experts=EXPERTS, sequence=sequence)


def by_word(layer, ids, before, generator):
    """The word says it, nine times of ten."""
    said = (ids * (3 + 2 * layer)) % EXPERTS
    return np.where(generator.random(len(ids)) < 0.1, generator.integers(0, EXPERTS, len(ids)), said)


def by_chance(layer, ids, before, generator):
    return generator.integers(0, EXPERTS, len(ids))


def entropy(share: float) -> float:
    return -share * log(share) - (1 - share) * log(1 - share)


def test_it_beats_the_trivial_predictor_on_held_out_tokens(tmp_path):
    scores = train_path_predictor(routed(by_word), tmp_path, window=2, learning_rate=1e-2)
    assert scores.trivial_loss == pytest.approx(entropy(1 / EXPERTS), abs=1e-6)
    assert scores.trivial_loss == pytest.approx(0.377, abs=1e-3)
    # with the truth known, one of ten words is a draw among eight: 0.9 + 0.1 / 8 of recall.
    assert scores.recall > 0.85
    assert scores.precision > 0.85
    assert scores.loss < 0.5 * scores.trivial_loss
    assert scores.loss < 0.5 * scores.popular_loss
    assert scores.popular_recall < 0.4
    assert (scores.k, scores.trained, scores.held_out) == (1, 960, 240)
    assert "on 240 held-out tokens" in str(scores)


def test_it_uses_the_tokens_before(tmp_path):
    trace = routed(lambda layer, ids, before, generator: before % EXPERTS)
    alone, both = (
        train_path_predictor(trace, tmp_path / str(window), window=window, learning_rate=1e-2) for window in (1, 2)
    )
    assert alone.recall < 0.3
    assert both.recall > 0.9


def test_where_nothing_can_be_learned_it_says_so(tmp_path):
    scores = train_path_predictor(routed(by_chance), tmp_path, epochs=5)
    assert scores.loss == pytest.approx(scores.trivial_loss, rel=0.01)
    assert scores.recall < 0.25


def test_one_way_for_all_is_learned_to_nothing(tmp_path):
    trace = routed(lambda layer, ids, before, generator: np.full(len(ids), layer + 1))
    scores = train_path_predictor(trace, tmp_path, epochs=5)
    assert scores.loss < 0.01
    assert scores.recall == 1.0
    assert scores.precision == 1.0


def test_what_was_saved_is_what_was_trained(tmp_path):
    trace = routed(by_word, tokens=200)
    scores = train_path_predictor(trace, tmp_path / "a", epochs=2)
    again = train_path_predictor(trace, tmp_path / "b", epochs=2)
    assert str(again) == str(scores)  # not a number is not itself
    one, other = (load_path_predictor(tmp_path / name) for name in "ab")
    rows = one.rows(torch.tensor([[3, 5, 9, 1], [0, 2, 4, 900]]).flatten()).view(2, 4)
    assert rows[1, 3] == 0  # a word that was never read
    assert (rows.flatten()[:-1] > 0).all()
    assert torch.equal(one(rows), other(rows))
    assert json.loads((tmp_path / "a/path_predictor.json").read_text())["scores"]["loss"] == scores.loss


def test_the_randomness_of_others_is_left_alone(tmp_path):
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    train_path_predictor(routed(by_word, tokens=50), tmp_path, epochs=1)
    assert torch.equal(torch.rand(3), expected)


def test_a_text_does_not_see_the_one_before_it(tmp_path):
    trace = routed(lambda layer, ids, before, generator: before % EXPERTS, sequences=TOKENS)
    scores = train_path_predictor(trace, tmp_path, window=2, epochs=10, learning_rate=1e-2)
    assert scores.recall < 0.3


def test_a_missing_or_damaged_predictor_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no path predictor"):
        load_path_predictor(tmp_path / "none")
    train_path_predictor(routed(by_word, tokens=50), tmp_path, epochs=1)
    weights = tmp_path / "path_predictor.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(ValueError, match="is damaged"):
        load_path_predictor(tmp_path)


def test_a_trace_that_is_too_short_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"held_out=0.2 of 1 tokens leaves 1 to learn from and 0 to judge by"):
        train_path_predictor(routed(by_word, tokens=1), tmp_path)
    with pytest.raises(ValueError, match="window must be at least 1, got 0"):
        train_path_predictor(routed(by_word, tokens=5), tmp_path, window=0)

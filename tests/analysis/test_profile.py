"""What each expert gets, by hand and by loops."""

import numpy as np
import pytest

from workbench.analysis import domain_profile, domain_variation, top_token_ids
from workbench.trace import from_arrays


def test_rates_of_two_domains(traced):
    trace = traced({"expert": [[[0, 1], [0, 2], [0, -1], [3, 1]]], "domain": ["a", "a", "a", "b"]})
    profile = domain_profile(trace)
    third = 1 / 3
    assert np.allclose(profile.sel(layer=0), [[1, 0], [third, 1], [third, 0], [0, 1]])
    assert profile["domain"].values.tolist() == ["a", "b"]
    assert profile["tokens"].values.tolist() == [[3, 1]]


def test_an_expert_of_one_domain_varies_most(traced):
    domain = ["a", "b", "c", "d"] * 30
    trace = traced({"expert": [[[0, "abcd".index(name) % 2 + 1] for name in domain]], "domain": domain})
    variation = domain_variation(trace)
    # expert 0 serves all alike, 1 and 2 two domains of four each, 3 nothing.
    assert variation.values[0, :3] == pytest.approx([0, 1, 1])
    assert np.isnan(variation.values[0, 3])
    alone = traced({"expert": [[["abcd".index(name)] for name in domain]], "domain": domain})
    assert domain_variation(alone).values[0] == pytest.approx(np.sqrt(3))


def test_random_experts_vary_as_much_as_stated(traced, draws):
    domain = ["a", "b", "c", "d"] * 100
    found = domain_variation(traced({"expert": draws(30, 400, 4, 1, empty=0.0), "domain": domain}))
    # of 120 experts the root mean square, against the one expected.
    ratio = np.sqrt((found.values**2).mean() / (found["by_chance"].values ** 2).mean())
    assert ratio == pytest.approx(1, abs=0.2)


def test_rates_agree_with_loops(traced, draws):
    expert = draws(2, 60, 5, 3, seed=8)
    domain = ["abc"[i] for i in np.random.default_rng(0).integers(3, size=60)]
    trace = traced({"expert": expert, "domain": domain, "num_experts": 5})
    profile, variation = domain_profile(trace), domain_variation(trace)
    for layer in range(2):
        for e in range(5):
            rates = []
            for name in "abc":
                served = [e in token for token, of in zip(expert[layer], domain, strict=True) if of == name]
                rates.append(sum(served) / len(served))
            assert profile.values[layer, e] == pytest.approx(rates)
            assert variation.values[layer, e] == pytest.approx(np.std(rates) / np.mean(rates))


def test_the_ids_that_go_most_to_an_expert():
    token_id = np.array([7] * 4 + [8] * 4 + [9] * 4 + [1])
    expert = np.array([0, 0, 0, 1, 1, 1, 1, 1, 0, 0, 1, 1, 0])[:, None, None]
    trace = from_arrays(token_id, expert, num_experts=3, decode_piece=lambda token: f"<{token}>")
    found = top_token_ids(trace, count=2, min_count=4)
    assert found.sel(layer=0, expert=0).values.tolist() == [0.75, 0.5]
    assert found["token_id"].values[0, 0].tolist() == [7, 9]
    assert found["piece"].values[0, 1].tolist() == ["<8>", "<9>"]
    assert found.mean("rank").values[0].tolist() == [0.625, 0.75, 0]


def test_the_first_choice_counts_and_not_the_second():
    weight = np.array([[[0.25, 0.75]]] * 20, dtype=np.float32)
    trace = from_arrays(np.zeros(20, int), np.array([[[0, 1]]] * 20), weight, num_experts=2)
    assert top_token_ids(trace).values[0].ravel().tolist() == [0, 1]


def test_luck_looks_as_good_as_stated(traced, draws):
    ids = np.random.default_rng(0).integers(40, size=1600)
    found = top_token_ids(traced({"expert": draws(4, 1600, 4, 1, empty=0.0), "ids": ids}))
    assert np.abs(found.mean("rank") - found["by_chance"]).max() < 0.05
    # the base rate is a quarter; the best fifteen of forty ids are well above it by luck.
    assert (found["by_chance"] > 0.27).all()


def test_layers_without_an_expert_have_no_number_for_it(traced):
    passes = {"expert": [[[0], [1]]], "num_experts": 2, "domain": ["a", "b"]}
    trace = traced(passes | {"also": [{"expert": [[], [[4], [4]]], "num_experts": 5}]})
    assert np.isnan(domain_profile(trace).values[0, 2:]).all()
    assert domain_profile(trace).sel(layer=1, expert=4).values.tolist() == [1, 1]
    top = top_token_ids(trace, min_count=1)
    assert np.isnan(top.values[0, 2:]).all()
    assert np.isnan(top["by_chance"].values[0, 2:]).all()


def test_what_is_missing_is_said(traced):
    with pytest.raises(LookupError, match="at least 1 labels with min_count=1 tokens are needed, got 0 by domain"):
        domain_profile(traced({"expert": [[[0]]]}))
    with pytest.raises(LookupError, match=r"at least 2 labels .* got 1 by domain"):
        domain_variation(traced({"expert": [[[0]]], "domain": ["a"]}))
    with pytest.raises(ValueError, match="count must be at least 1, got 0"):
        top_token_ids(traced({"expert": [[[0]]]}), count=0)

"""Specialisation is 1 when the expert says the label, 0 by chance."""

import numpy as np
import pytest

from workbench.analysis import specialisation
from workbench.trace import from_arrays

DOMAINS = ["a", "b", "c", "d"]


def test_an_expert_per_domain_is_perfect(traced):
    domain = DOMAINS * 25
    found = specialisation(traced({"expert": [[[DOMAINS.index(name)] for name in domain]], "domain": domain}))
    assert found.item() == pytest.approx(1)
    assert found["information"].item() == pytest.approx(np.log(4))
    assert found["limit"].item() == pytest.approx(np.log(4))
    assert 0 < found["by_chance"].item() < 0.1


def test_two_experts_per_domain_and_two_domains_per_expert_are_perfect_too(traced):
    domain = DOMAINS * 25
    pairs = [[2 * DOMAINS.index(name), 2 * DOMAINS.index(name) + 1] for name in domain]
    apart = [[2 * DOMAINS.index(name) + token // 4 % 2] for token, name in enumerate(domain)]
    shared = [[DOMAINS.index(name) // 2] for name in domain]
    for chosen in (pairs, apart, shared):
        trace = traced({"expert": [chosen], "domain": domain, "num_experts": 8})
        assert specialisation(trace).item() == pytest.approx(1)


def test_a_table_of_token_ids_is_perfect_with_one_and_with_two_experts():
    token_id = np.arange(1200) % 40
    one = from_arrays(token_id, (token_id % 8)[:, None, None], num_experts=8)
    pair = np.stack([token_id % 8, (token_id + 1 + token_id // 8) % 8], axis=-1)[:, None]
    assert specialisation(one, by="token_id").item() == pytest.approx(1)
    assert specialisation(from_arrays(token_id, pair, num_experts=8), by="token_id").item() > 0.95


@pytest.mark.parametrize("by", ["domain", "token_id"])
@pytest.mark.parametrize("top_k", [1, 3])
def test_random_experts_are_zero_within_the_spread_stated(traced, draws, by, top_k):
    tokens = 800
    trace = traced(
        {
            "expert": draws(6, tokens, 8, top_k, empty=0.0),
            "domain": [DOMAINS[i] for i in np.random.default_rng(1).integers(4, size=tokens)],
            "ids": np.random.default_rng(2).integers(30, size=tokens),
            "num_experts": 8,
        }
    )
    found = specialisation(trace, by=by, min_count=1, shuffles=40)
    assert (np.abs(found.values) < 5 * found["spread"].values).all()
    assert (found["spread"] < 0.02).all()
    # without the correction, 30 ids and 8 experts would look like this much.
    assert (found["information"] / found["limit"] > 0.001).all()


def test_the_information_agrees_with_loops(traced, draws):
    expert = draws(2, 60, 5, 2, seed=1)
    domain = [DOMAINS[i] for i in np.random.default_rng(1).integers(3, size=60)]
    found = specialisation(traced({"expert": expert, "domain": domain, "num_experts": 5}), min_count=1)
    for layer in range(2):
        joint = {}
        tokens = [([e for e in token if e >= 0], name) for token, name in zip(expert[layer], domain, strict=True)]
        tokens = [pair for pair in tokens if pair[0]]
        for chosen, name in tokens:
            for e in chosen:
                joint[e, name] = joint.get((e, name), 0) + 1 / len(chosen) / len(tokens)
        of_expert = {e: sum(p for (x, _), p in joint.items() if x == e) for e, _ in joint}
        of_domain = {d: sum(p for (_, x), p in joint.items() if x == d) for _, d in joint}
        wanted = sum(p * np.log(p / of_expert[e] / of_domain[d]) for (e, d), p in joint.items())
        assert found["information"].values[layer] == pytest.approx(wanted)
        entropy = [-sum(p * np.log(p) for p in part.values()) for part in (of_expert, of_domain)]
        left_open = np.mean([np.log(len(chosen)) for chosen, _ in tokens])
        assert found["limit"].values[layer] == pytest.approx(min(entropy[0] - left_open, entropy[1]))


def test_ids_that_occur_once_prove_nothing():
    trace = from_arrays(np.arange(50), np.arange(50)[:, None, None] % 4, num_experts=4)
    found = specialisation(trace, by="token_id", min_count=1)
    assert np.isnan(found.item())
    assert found["information"].item() == pytest.approx(found["by_chance"].item())
    with pytest.raises(LookupError, match=r"got 0 by token_id \(the largest has 1\) .* or lower min_count"):
        specialisation(trace, by="token_id")


def test_a_layer_that_uses_one_expert_or_all_has_nothing_to_find(traced):
    domain = ["a", "b"] * 20
    trace = traced({"expert": [[[0, -1]] * 40, [[0, 1]] * 40, [[-1, -1]] * 40], "domain": domain, "num_experts": 2})
    assert np.isnan(specialisation(trace)).all()


def test_the_same_seed_gives_the_same_numbers_and_every_layer_its_own(traced, draws):
    trace = traced({"expert": draws(2, 80, 4, 1), "domain": ["a", "b"] * 40})
    assert specialisation(trace, seed=3).identical(specialisation(trace, seed=3))
    assert specialisation(trace, seed=3).values.tolist() != specialisation(trace, seed=4).values.tolist()


def test_one_shuffle_is_refused(traced):
    with pytest.raises(ValueError, match="shuffles must be at least 2, got 1; the spread needs two"):
        specialisation(traced({"expert": [[[0]]], "domain": ["a"]}), shuffles=1)
    with pytest.raises(
        LookupError, match=r"got 0 by domain \(the largest has 0\) .* record longer text of known domain"
    ):
        specialisation(traced({"expert": [[[0]]]}))

"""Made-up traces have the statistics they were made with."""

import numpy as np
import pytest
import xarray as xr

from workbench.trace import synthetic_trace, validate
from workbench.trace.synth import popularity

TOKENS = 4000


def test_load_follows_the_popularity():
    trace = synthetic_trace(num_tokens=TOKENS, num_layers=2, num_experts=8, top_k=1, skew=1.5, phase="prefill")
    assert validate(trace) == []
    wanted = popularity(8, 1.5)
    for layer in range(2):
        found = np.sort(trace["load"]["load"].values[0, layer])[::-1]
        # five standard deviations of a share over this many draws.
        assert np.abs(found - wanted).max() < 5 * np.sqrt(0.25 / TOKENS)


@pytest.mark.parametrize("locality", [0.0, 0.6])
def test_neighbours_share_their_expert_as_often_as_said(locality):
    trace = synthetic_trace(
        num_tokens=TOKENS, num_layers=1, num_experts=8, top_k=1, skew=1.0, locality=locality, phase="prefill"
    )
    expert = trace["routing"]["expert"].values[0, :, 0]
    wanted = locality + (1 - locality) * (popularity(8, 1.0) ** 2).sum()
    assert abs((expert[1:] == expert[:-1]).mean() - wanted) < 5 * np.sqrt(0.25 / TOKENS)


def test_a_token_has_different_experts_and_decode_makes_a_step_of_each():
    trace = synthetic_trace(num_tokens=50, num_experts=4, top_k=3)
    expert = np.sort(trace["routing"]["expert"].values, axis=-1)
    assert (np.diff(expert, axis=-1) > 0).all()
    assert trace["load"]["step"].values.tolist() == list(range(50))


def test_it_says_that_it_is_made_up_and_repeats_itself():
    one, two = (synthetic_trace(num_tokens=20, seed=4) for _ in range(2))
    for group in ("routing", "load"):
        xr.testing.assert_identical(one[group].to_dataset(), two[group].to_dataset())
    assert synthetic_trace(num_tokens=2).attrs["synthetic"] is True


def test_impossible_statistics_are_refused():
    with pytest.raises(ValueError, match="top_k must be between 1 and 4, got 5; use more experts"):
        synthetic_trace(num_experts=4, top_k=5)
    with pytest.raises(ValueError, match="locality must be between 0 and 1, got 2"):
        synthetic_trace(locality=2)

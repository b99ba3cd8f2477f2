"""Results say what they are, requests are answered or refused in words."""

import numpy as np
import pytest
import xarray as xr

from workbench.analysis import (
    choice_entropy,
    choice_margin,
    co_activation,
    dead_fraction,
    domain_profile,
    domain_variation,
    dropped_fraction,
    expert_load,
    fluctuation,
    fluctuation_between,
    layer_affinity,
    layer_transition,
    load_variation,
    max_violation,
    pair_affinity,
    shadow_agreement,
    specialisation,
    top_token_ids,
    top_weight,
)
from workbench.analysis._labelled import labelled, measured, one_phase
from workbench.trace import open_trace, save_trace

MEASURES = [
    choice_entropy,
    choice_margin,
    co_activation,
    dead_fraction,
    domain_profile,
    domain_variation,
    dropped_fraction,
    expert_load,
    fluctuation,
    layer_affinity,
    layer_transition,
    load_variation,
    max_violation,
    pair_affinity,
    shadow_agreement,
    specialisation,
    top_token_ids,
    top_weight,
]


@pytest.fixture(scope="module")
def run(traced, draws):
    """Two training steps of known domains under a shadow, and the probe before each."""
    tokens = 60
    facts = {"domain": ["prose", "code"] * (tokens // 2), "ids": np.arange(tokens) % 2}
    passes = []
    for step in (1, 2):
        watched = [{"expert": draws(2, tokens, 4, 2, seed=step + 9), "is_shadow": True, "router": "switch"}]
        probe = {"expert": draws(2, 5, 4, 2, seed=step), "phase": "prefill", "is_probe": True}
        passes += [{"expert": draws(2, tokens, 4, 2, seed=step), "also": watched, "step": step} | facts]
        passes += [probe | {"step": step}]
    return traced(*passes)


@pytest.mark.parametrize("measure", MEASURES, ids=lambda measure: measure.__name__)
def test_every_result_says_what_it_is_and_over_what(measure, run):
    result = measure(run)
    assert result.attrs["units"] in {"1", "nat"}
    assert len(result.attrs["long_name"]) > 10
    assert "tokens" in result.attrs["over"]
    assert result.name in {measure.__name__, "fluctuation"}
    assert result.dtype == np.float64
    assert np.isfinite(result.values).any() or "Sampling(prob=True)" in result.attrs["missing"]
    for name, coordinate in result.coords.items():
        if coordinate.dtype.kind == "f":
            assert {"units", "long_name"} <= set(coordinate.attrs), name


def test_a_trace_read_back_from_disk_gives_the_same_numbers(run, tmp_path):
    save_trace(run, tmp_path / "run.nc")
    again = open_trace(tmp_path / "run.nc")
    for measure in MEASURES:
        xr.testing.assert_equal(measure(again), measure(run))


def test_two_steps_are_compared_by_name(run):
    result = fluctuation_between(run, 1, 2)
    assert (int(result["since"]), int(result["step"])) == (1, 2)
    assert result.attrs["units"] == "1"


def test_facts_and_coordinates_come_along():
    count = measured("layer", np.array([3.0]), "tokens seen", "token")
    result = labelled(
        np.array([1.0]), ["layer"], name="a", long_name="b", units="1", over="c", coords={"n": count}, facts={"seed": 4}
    )
    assert result.attrs == {"long_name": "b", "units": "1", "over": "c", "seed": 4}
    assert result["n"].attrs == {"long_name": "tokens seen", "units": "token"}


def test_the_only_phase_needs_no_name():
    assert one_phase(np.array(["decode", "decode"]), None, what="rows") == "decode"
    assert one_phase(np.array(["decode", "train"]), "train", what="rows") == "train"
    with pytest.raises(LookupError, match="the trace holds no rows; record some first"):
        one_phase(np.array([], dtype="U6"), None, what="rows")

"""The `/load` group as a payload."""

import numpy as np
import pytest
import xarray as xr

from workbench.payloads import expert_load_payload


def window_mean(arrays, first, last, phase="train"):
    """What the view computes: the token-weighted mean over kept rows first..last, from the running sums."""
    total, count = arrays[f"{phase}.total"], arrays[f"{phase}.count"]
    before_total = total[first - 1] if first else 0
    before_count = count[first - 1] if first else 0
    with np.errstate(invalid="ignore"):
        return (total[last] - before_total) / (count[last] - before_count)


def test_the_numbers_are_those_of_the_trace(decode, samples, trace_of):
    load = samples.load_group(steps=30)
    header, arrays = decode(expert_load_payload(trace_of(load=load)))
    assert header["phases"] == ["train"]
    assert np.array_equal(arrays["train.load"], load["load"].values)
    assert arrays["train.step"].tolist() == list(range(1, 31))
    assert arrays["layer"].tolist() == [0, 1, 2, 3]
    assert np.array_equal(arrays["train.entropy"], load["entropy"].values)


def test_a_mean_over_a_window_weighs_steps_by_their_tokens(decode, samples, trace_of):
    load = samples.load_group(steps=12, layers=2, experts=3, dead=None)
    load["tokens"] = ("step", np.arange(1, 13) * 100)
    _, arrays = decode(expert_load_payload(trace_of(load=load)))
    share, tokens = load["load"].values[4:9].astype(float), load["tokens"].values[4:9]
    assert window_mean(arrays, 4, 8) == pytest.approx(np.average(share, axis=0, weights=tokens), rel=1e-12)


def test_a_mean_stays_exact_when_steps_between_are_not_sent(decode, samples, trace_of):
    load = samples.load_group(steps=100)
    header, arrays = decode(expert_load_payload(trace_of(load=load), max_cells=64 * 10))
    assert len(arrays["train.step"]) == 10
    assert arrays["train.step"][[0, -1]].tolist() == [1, 100]
    assert np.array_equal(arrays["train.load"], load["load"].sel(step=arrays["train.step"]).values)
    first, last = int(arrays["train.row"][3]) + 1, int(arrays["train.row"][7])
    expected = load["load"].values[first : last + 1].astype(float).mean(0)
    assert window_mean(arrays, 4, 7) == pytest.approx(expected, rel=1e-9)
    assert header["statements"][0] == (
        "Showing 10 of 100 recorded training steps, evenly spaced; averages count every recorded step."
    )


def test_an_expert_that_got_nothing_is_exactly_zero_in_every_window(decode, samples, trace_of):
    _, arrays = decode(expert_load_payload(trace_of(load=samples.load_group(steps=50, dead=(2, 3)))))
    assert window_mean(arrays, 20, 49)[2, 3] == 0
    assert (arrays["train.load"][:, 2, 3] == 0).all()


def test_steps_without_a_number_do_not_count(decode, samples, trace_of):
    load = samples.load_group(steps=10, layers=2, experts=4, dead=None)
    load["load"][3:5, 1] = np.nan
    load["load"][:, 0, 3] = np.nan
    _, arrays = decode(expert_load_payload(trace_of(load=load)))
    mean = window_mean(arrays, 0, 9)
    assert mean[1] == pytest.approx(np.nanmean(load["load"].values[:, 1].astype(float), axis=0), rel=1e-9)
    assert np.isnan(mean[0, 3])
    assert np.isnan(arrays["train.load"][3, 1]).all()


def test_phases_stay_apart(decode, samples, trace_of):
    train, decoded = samples.load_group(steps=4), samples.load_group(steps=3, dead=(0, 0))
    decoded["phase"] = ("step", samples.text_array(["decode"] * 3))
    both = xr.concat([train, decoded], "step")
    header, arrays = decode(expert_load_payload(trace_of(load=both)))
    assert header["phases"] == ["train", "decode"]
    assert np.array_equal(arrays["train.load"], train["load"].values)
    assert np.array_equal(arrays["decode.load"], decoded["load"].values)


def test_the_payload_of_a_long_run_of_a_wide_model_is_bounded(samples, trace_of):
    load = samples.load_group(steps=400, layers=16, experts=64)
    assert len(expert_load_payload(trace_of(load=load))) < 3_000_000


def test_nothing_recorded_says_so(decode, samples, trace_of):
    for trace in (trace_of(), trace_of(load=samples.load_group(steps=4).isel(step=slice(0)))):
        assert decode(expert_load_payload(trace))[0]["empty"] == "No load of experts has been recorded in this trace."

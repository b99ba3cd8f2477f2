"""Texts that a run's model wrote come back as they were kept."""

import pytest
import xarray as xr

from workbench.model.recorded import Written
from workbench.train.run_folder import RunFolder
from workbench.view.report import TextSample
from workbench.view.samples import keep_sample, samples_of

ANSWER = Written(text="c", num_tokens=1, seconds=0.5, is_recomputed=False).answer(
    "ab", settings="greedy", trained_seconds=3.0, trace=xr.DataTree()
)
SAMPLE = TextSample(prompt="ab", text="c", settings="greedy", trained_seconds=3.0)


def test_a_kept_sample_comes_back(tmp_path):
    run = RunFolder(tmp_path)
    assert keep_sample(ANSWER, run) == SAMPLE
    assert samples_of(run) == [SAMPLE]


def test_without_a_run_it_is_only_returned():
    assert keep_sample(ANSWER, None) == SAMPLE


def test_samples_of_another_version_are_named(tmp_path):
    RunFolder(tmp_path).add_sample({"prompt": "a", "words": "b"})
    with pytest.raises(ValueError, match=r"holds texts of another version .*; remove its samples.json"):
        samples_of(RunFolder(tmp_path))

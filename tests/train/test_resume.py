"""A run that was stopped and taken up again is, bit for bit, the run that was not."""

import shutil

import numpy as np
import pytest
import torch

from workbench.core import Spec
from workbench.trace import open_trace, validate
from workbench.train.assemble import resume_training

# What says when and how fast something was done; all else must agree.
CLOCKS = {"wall_seconds", "tokens_per_second", "time_ns"}

CASES = {
    "two micro-batches with jitter": {"micro_batches": 2, "batch_size": 8, "router": "switch:jitter=0.3"},
    "a second expert by chance": {"router": "gshard"},
    "experts choose": {"router": "expert_choice"},
    "a router by chance": {"router": "random"},
    "a learned bias": {"router": "top_k:selection_bias=True,score=sigmoid"},
    "bfloat16": {"dtype": "bfloat16"},
    "recomputed": {"recompute": True, "router": "switch:jitter=0.3"},
    "losses over the step": {
        "micro_batches": 2,
        "batch_size": 8,
        "balance_over": "global_batch",
        "num_steps": 6,
        "aux_weights": {"entropy": 1e-2, "balance": 0.1},
        "aux_schedule": {"balance": "linear:first=1,last=0.1", "entropy": "step:at=0.5"},
    },
    "a capacity that follows the load": {"router": "gshard:dynamic_capacity=local"},
    "a schedule": {"num_steps": 6, "schedule": "cosine"},
}
QUICK = ("two micro-batches with jitter", "a second expert by chance", "losses over the step")


@pytest.fixture
def resume():
    made = []

    def go_on(folder):
        made.append(resume_training(folder))
        return made[-1]

    yield go_on
    for trainer in made:
        trainer.release()


def assert_same_trace(first, second) -> None:
    """Two traces hold the same groups, variables and values, clocks apart."""
    one, two = (open_trace(folder / "trace.zarr") for folder in (first, second))
    assert set(one.children) == set(two.children)
    for name, group in one.children.items():
        assert set(group.variables) == set(two[name].variables)
        for key in set(group.variables) - CLOCKS:
            np.testing.assert_array_equal(group[key].values, two[name][key].values, err_msg=f"{name}/{key}")
    assert validate(two) == []


@pytest.mark.parametrize(
    "case", [case if case in QUICK else pytest.param(case, marks=pytest.mark.slow) for case in CASES]
)
def test_half_and_half_is_the_whole(case, start, resume, tmp_path, losses_of, contents_of, assert_same_bits):
    # four steps of 16 sequences end an epoch of 62: the run is stopped inside one and goes on into the next.
    options, half = {"batch_size": 16, **CASES[case]}, 3
    whole = start(folder=tmp_path / "whole", **options)
    expected = losses_of(whole, 2 * half)
    batches, micro = whole.batches, whole.config.micro_batches
    assert batches.epoch_of(half * micro) < batches.epoch_of((2 * half - 1) * micro)
    assert half * micro * batches.batch_size % batches.num_windows
    whole.close()
    first = start(folder=tmp_path / "parts", **options)
    losses = losses_of(first, half)
    first.close()
    second = resume(tmp_path / "parts")
    assert second.step == half
    losses += losses_of(second, half)
    assert losses == expected
    assert_same_bits(contents_of(second), contents_of(whole))
    assert second.tokens == whole.tokens
    assert second.evaluate() == whole.evaluate()
    second.close()
    assert_same_trace(tmp_path / "whole", tmp_path / "parts")
    assert open_trace(tmp_path / "parts" / "trace.zarr")["run"]["step"].values.tolist() == list(range(1, 2 * half + 1))


@pytest.mark.parametrize("swapped_at", ["just before the stop", "steps before the stop"])
def test_a_swap_survives_the_stop(swapped_at, start, resume, tmp_path, losses_of, contents_of, assert_same_bits):
    after = 0 if swapped_at == "just before the stop" else 2
    whole = start(folder=tmp_path / "whole")
    expected = losses_of(whole, 3)
    whole.swap(Spec("switch", {"jitter": 0.3}))
    expected += losses_of(whole, 4)
    whole.close()
    parts = start(folder=tmp_path / "parts")
    losses = losses_of(parts, 3)
    parts.swap(Spec("switch", {"jitter": 0.3}))
    losses += losses_of(parts, after)
    parts.close()
    again = resume(tmp_path / "parts")
    assert str(again.model.config.router) == "switch:jitter=0.3"
    losses += losses_of(again, 4 - after)
    assert losses == expected
    assert_same_bits(contents_of(again), contents_of(whole))
    again.close()
    assert_same_trace(tmp_path / "whole", tmp_path / "parts")
    assert open_trace(tmp_path / "parts" / "trace.zarr")["control"]["applied_step"].values.tolist() == [4]


@pytest.mark.parametrize("is_flushed", [False, True])
def test_a_run_that_dies_between_checkpoints_repeats_the_steps_it_lost(
    is_flushed, start, resume, tmp_path, losses_of, contents_of, assert_same_bits
):
    # the folder is copied while the run is alive: what a kill would have left, with a trace that may be ahead.
    trainer = start(folder=tmp_path / "whole", checkpoint_every=2)
    for report in trainer.run(5):
        if report.step == 3:
            if is_flushed:
                trainer.recorder.flush()
            shutil.copytree(tmp_path / "whole", tmp_path / "killed")
    trainer.close()
    again = resume(tmp_path / "killed")
    assert again.step == 2
    list(again.run(3))
    assert_same_bits(contents_of(again), contents_of(trainer))
    again.close()
    assert_same_trace(tmp_path / "whole", tmp_path / "killed")


def test_a_run_that_dies_before_its_first_step_begins_again(start, resume, tmp_path, losses_of):
    trainer = start(folder=tmp_path / "a")
    run = trainer.run(2)
    next(run)
    trainer.recorder.flush()
    shutil.copytree(tmp_path / "a", tmp_path / "killed")
    again = resume(tmp_path / "killed")
    assert again.step == 0
    assert losses_of(again, 2) == losses_of(start(), 2)
    again.close()
    trace = open_trace(tmp_path / "killed" / "trace.zarr")
    assert trace["run"]["step"].values.tolist() == [1, 2]
    probe = trace["routing"]["step"].values[trace["routing"]["is_probe"].values]
    assert np.unique(probe, return_counts=True)[1].tolist() == [again.batches.probe().mask.sum()]


def test_time_and_tokens_go_on_counting(start, resume, tmp_path):
    first = start(folder=tmp_path / "a")
    [report] = first.run(1)
    first.close()
    [following] = resume(tmp_path / "a").run(1)
    assert following.tokens == 2 * report.tokens
    assert following.wall_seconds > report.wall_seconds


def test_a_resumed_run_does_not_write_the_same_checkpoint_again(start, resume, tmp_path):
    first = start(folder=tmp_path / "a")
    list(first.run(1))
    first.close()
    newest = tmp_path / "a" / "checkpoints" / "step_00000001"
    written = newest.stat().st_mtime_ns
    again = resume(tmp_path / "a")
    assert again.save() is None
    again.close()
    assert newest.stat().st_mtime_ns == written


def test_the_optimiser_goes_on_with_its_own_state(start, resume, tmp_path, contents_of):
    first = start(folder=tmp_path / "a")
    list(first.run(2))
    first.close()
    states = {name: value for name, value in contents_of(resume(tmp_path / "a")).items() if "|" in name}
    steps = [float(value) for name, value in states.items() if name.endswith("|step")]
    assert set(steps) == {2.0}
    assert any(torch.count_nonzero(value) for name, value in states.items() if name.endswith("|exp_avg"))

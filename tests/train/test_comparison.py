"""A comparison trains each router with each seed once, goes on after a kill, and does not depend on how it is run."""

import json
import shutil

import numpy as np
import pytest

from workbench.core import Spec
from workbench.train.comparison import Comparison, compare

MODEL = "tiny:num_layers=1,width=32,num_heads=2,num_kv_heads=1,head_dim=16,num_experts=4,expert_width=16"


@pytest.fixture
def make(make_config, corpus):
    def begin(*routers: str, steps: int = 2, seeds=(0, 1), **changes) -> Comparison:
        specs = tuple(Spec.parse(router) for router in routers or ("top_k", "switch"))
        config = make_config(**changes)
        return Comparison(routers=specs, steps=steps, seeds=seeds, model=MODEL, corpus=corpus, config=config)

    return begin


def numbers(results) -> np.ndarray:
    """Everything but the speed, which is the machine's."""
    names = [name for name in results.data.data_vars if name not in ("tokens_per_second", "failed")]
    return np.concatenate([results.data[name].values.astype(float).ravel() for name in names])


def test_every_router_meets_every_seed_with_the_same_batches(make, tmp_path):
    results = compare(make(), str(tmp_path), jobs=1)
    assert results.data["router"].values.tolist() == ["top_k", "switch"]
    assert results.data["seed"].values.tolist() == [0, 1]
    assert np.isfinite(results.loss.values).all()
    runs = sorted((tmp_path / "cells").glob("*/run/run.json"))
    assert len(runs) == 4
    seeds = [json.loads(path.read_text())["train"]["seed"] for path in runs]
    assert sorted(seeds) == [0, 0, 1, 1]


def test_two_processes_find_what_one_finds(make, tmp_path):
    comparison, seen = make(), []
    one = compare(comparison, tmp_path / "one", jobs=1)
    two = compare(comparison, tmp_path / "two", jobs=2, on_progress=lambda done, total: seen.append((done, total)))
    assert np.array_equal(numbers(one), numbers(two), equal_nan=True)
    assert seen[-1] == (8, 8)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_what_is_finished_is_read_and_what_was_interrupted_goes_on(make, tmp_path, monkeypatch):
    comparison = make(steps=4, seeds=(0,))
    whole = compare(comparison, tmp_path / "whole", jobs=1)
    with pytest.raises(KeyboardInterrupt):
        compare(comparison, tmp_path / "cut", jobs=1, on_progress=stop_at(6))
    done = sorted(path.parent.name for path in (tmp_path / "cut" / "cells").glob("*/result.json"))
    assert [name.split("-")[0] for name in done] == ["top_k"]

    def not_again(*arguments, **options):
        raise AssertionError("a finished or begun run was started anew")

    monkeypatch.setattr("workbench.train.compare_cell.start_training", not_again)
    again = compare(comparison, tmp_path / "cut", jobs=1)
    assert np.array_equal(numbers(again), numbers(whole), equal_nan=True)


def stop_at(steps: int):
    def stop(done: int, total: int) -> None:
        if done == steps:
            raise KeyboardInterrupt

    return stop


def test_another_setting_is_another_run(make, tmp_path):
    compare(make(seeds=(0,)), tmp_path, jobs=1)
    compare(make(seeds=(0,), learning_rate=1e-3), tmp_path, jobs=1)
    compare(make("top_k:balance=0.5", "switch", seeds=(0,)), tmp_path, jobs=1)
    assert len(list((tmp_path / "cells").iterdir())) == 5


def test_a_loss_that_is_no_number_ends_one_run_and_is_said(make, tmp_path, monkeypatch):
    from workbench.train import trainer

    original = trainer.check_finite

    def only_top_k(step, loss, norm, folder):
        bad = "switch" in str(folder)
        original(step, float("nan") if bad else loss, norm, folder)

    monkeypatch.setattr(trainer, "check_finite", only_top_k)
    results = compare(make(seeds=(0,)), tmp_path, jobs=1)
    assert "step 1" in str(results.data["failed"].sel(router="switch").values)
    assert results.ranking() == ["top_k"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"routers": ("top_k", "top_k")}, "expected different routers to compare"),
        ({"seeds": ()}, "expected different seeds"),
        ({"seeds": (1, 1)}, "expected different seeds"),
        ({"steps": 0}, "steps must be at least 1"),
        ({"routers": ("top_k:top_k=9",)}, "top_k must be between 1 and num_experts=4, got 9"),
        ({"routers": ("swich",)}, "did you mean 'switch'"),
    ],
)
def test_what_cannot_be_compared_is_refused_before_anything_is_written(make, arguments, message):
    arguments = dict(arguments)
    with pytest.raises((ValueError, LookupError), match=message):
        make(*arguments.pop("routers", ()), **arguments)


def test_a_damaged_result_is_named(make, tmp_path):
    comparison = make("top_k", seeds=(0,))
    compare(comparison, tmp_path, jobs=1)
    [result] = (tmp_path / "cells").glob("*/result.json")
    result.write_text("{")
    with pytest.raises(ValueError, match=r"result.json"):
        compare(comparison, tmp_path, jobs=1)
    shutil.rmtree(result.parent)

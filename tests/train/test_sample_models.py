"""Four models that differ in one thing, each in a run that can be taken up again."""

from dataclasses import replace

import pytest

from workbench.core import Spec
from workbench.train import sample_models
from workbench.train.checkpoint import checkpoints
from workbench.train.sample_models import SAMPLES, train_samples


def test_they_differ_in_balance_and_in_the_shared_expert_alone():
    plain = SAMPLES["balance_0.01"]
    assert {name: model.router.args["balance"] for name, model in SAMPLES.items()} == {
        "no_balance": 0.0,
        "balance_0.01": 0.01,
        "balance_0.1": 0.1,
        "shared_expert": 0.01,
    }
    assert {name for name, model in SAMPLES.items() if model.shared_width} == {"shared_expert"}
    assert all(replace(m, router=plain.router, shared_width=0) == plain for m in SAMPLES.values())


@pytest.fixture
def small_samples(shape, monkeypatch):
    router = Spec("top_k", {"top_k": 1, "balance": 0.0})
    chosen = {"one": shape, "two": replace(shape, router=router)}
    monkeypatch.setattr(sample_models, "SAMPLES", chosen)


def test_an_interrupted_series_goes_on_and_a_finished_one_is_left_alone(small_samples, tmp_path, corpus, capsys):
    options = {"corpus": corpus, "batch_size": 2, "sequence_length": 16}
    train_samples(tmp_path, steps=1, **options)
    train_samples(tmp_path, steps=2, **options)
    newest = {name: checkpoints(tmp_path / name / "checkpoints")[-1] for name in ("one", "two")}
    assert {name: path.name for name, path in newest.items()} == dict.fromkeys(newest, "step_00000002")
    written = {name: path.stat().st_mtime_ns for name, path in newest.items()}
    train_samples(tmp_path, steps=2, **options)
    assert {name: path.stat().st_mtime_ns for name, path in newest.items()} == written
    assert "one: step 2 of 2" in capsys.readouterr().err

"""kill -9 at random moments: the run goes on, and ends as the one that was left in peace."""

import multiprocessing
import random
import shutil
import time
from collections.abc import Callable, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from workbench.cli import main
from workbench.data import load_tokenizer
from workbench.model.transformer import Transformer, initialise
from workbench.model.weights import save_model
from workbench.trace import open_trace, validate
from workbench.train.checkpoint import checkpoints, load_optimizer, read_checkpoint
from workbench.train.config import TrainConfig
from workbench.train.optim import build_optimizer, named_states

STEPS = 40


@pytest.fixture(scope="module")
def begin_process() -> Callable[[Sequence[str]], BaseProcess]:
    """Starts `workbench` with arguments, in a process that has the heavy imports behind it already."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["workbench.commands"])

    def begin(arguments: Sequence[str]) -> BaseProcess:
        process = context.Process(target=main, args=(list(arguments),))
        process.start()
        return process

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        warm_up = begin(["list", "routers"])
        warm_up.join()
        assert warm_up.exitcode == 0
    return begin


@pytest.fixture
def model(shape, tmp_path) -> Path:
    """A small model in a folder, with the tokenizer of the task."""
    save_model(initialise(Transformer(shape), 0), tmp_path / "model")
    load_tokenizer("byte").save(tmp_path / "model")
    return tmp_path / "model"


def command(folder: Path, model: Path, corpus: str) -> list[str]:
    if (folder / "run.json").exists():
        return ["train", "--resume", str(folder), "--steps", str(STEPS)]
    options = {"batch_size": 4, "sequence_length": 16, "checkpoint_every": 3, "dtype": "float32"}
    words = [word for key, value in options.items() for word in ("--set", f"{key}={value}")]
    named = ["--model", str(model), "--corpus", corpus, "--router", "switch:jitter=0.3", "--out", str(folder)]
    return ["train", *named, "--steps", str(STEPS), *words]


def final_state(folder: Path) -> dict:
    """Every tensor of the last checkpoint, which must be that of the last step."""
    newest = checkpoints(folder / "checkpoints")[-1]
    assert newest.name == f"step_{STEPS:08d}"
    model, _ = read_checkpoint(newest)
    optimizer = build_optimizer(model, TrainConfig())
    load_optimizer(newest, model, optimizer)
    return {**model.state_dict(), **named_states(model, optimizer)}


def losses(folder: Path) -> dict[int, float]:
    trace = open_trace(folder / "trace.zarr")
    assert validate(trace) == []
    steps = trace["run"]["step"].values.tolist()
    assert steps == list(range(1, STEPS + 1))
    return dict(zip(steps, trace["run"]["loss"].values.tolist(), strict=True))


@pytest.mark.parametrize("kills", [3, pytest.param(12, marks=pytest.mark.slow)])
def test_a_run_that_is_killed_again_and_again_ends_as_the_one_that_was_not(
    kills, begin_process, model, corpus, tmp_path, assert_same_bits
):
    began = time.monotonic()
    peaceful = begin_process(command(tmp_path / "peaceful", model, corpus))
    peaceful.join()
    horizon = (time.monotonic() - began) / (kills + 1)
    chance, killed = random.Random(kills), tmp_path / "killed"
    for _ in range(kills):
        process = begin_process(command(killed, model, corpus))
        process.join(chance.uniform(0, horizon))
        process.kill()
        process.join()
        assert process.exitcode == -9, "it ended before it was killed"
        if (killed / "trace.zarr" / "zarr.json").exists():
            open_trace(killed / "trace.zarr")
    last = begin_process(command(killed, model, corpus))
    last.join()
    assert losses(killed) == losses(tmp_path / "peaceful")
    assert_same_bits(final_state(killed), final_state(tmp_path / "peaceful"))
    left = [path.name for path in (*tmp_path.iterdir(), *killed.rglob(".*"), *killed.rglob("*.lock"))]
    assert sorted(left) == ["killed", "model", "peaceful"]


def test_the_comparison_sees_a_run_that_lost_a_step(begin_process, model, corpus, tmp_path):
    begin_process(command(tmp_path / "a", model, corpus)).join()
    whole = final_state(tmp_path / "a")
    shutil.rmtree(checkpoints(tmp_path / "a" / "checkpoints")[-1])
    newest = checkpoints(tmp_path / "a" / "checkpoints")[-1]
    newest.rename(newest.with_name(f"step_{STEPS:08d}"))
    stale = final_state(tmp_path / "a")
    assert any(not stale[name].equal(tensor) for name, tensor in whole.items())

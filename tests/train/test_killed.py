"""kill -9 at random moments: the run goes on, and ends as the one that was left in peace."""

import multiprocessing
import random
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


def command(folder: Path, model: Path, corpus: str, steps: int) -> list[str]:
    if (folder / "run.json").exists():
        return ["train", "--resume", str(folder), "--steps", str(steps)]
    options = {"batch_size": 4, "sequence_length": 16, "checkpoint_every": 3, "dtype": "float32"}
    words = [word for key, value in options.items() for word in ("--set", f"{key}={value}")]
    named = ["--model", str(model), "--corpus", corpus, "--router", "switch:jitter=0.3", "--out", str(folder)]
    return ["train", *named, "--steps", str(steps), *words]


def state_at(folder: Path, step: int) -> dict:
    """Every tensor of a checkpoint."""
    path = folder / "checkpoints" / f"step_{step:08d}"
    model, _ = read_checkpoint(path)
    optimizer = build_optimizer(model, TrainConfig())
    load_optimizer(path, model, optimizer)
    return {**model.state_dict(), **named_states(model, optimizer)}


def losses(folder: Path) -> dict[int, float]:
    trace = open_trace(folder / "trace.zarr")
    assert validate(trace) == []
    return dict(zip(trace["run"]["step"].values.tolist(), trace["run"]["loss"].values.tolist(), strict=True))


def step_of(folder: Path) -> int:
    """Steps that are safe on disk, -1 before the run exists."""
    return max((int(path.name.removeprefix("step_")) for path in checkpoints(folder / "checkpoints")), default=-1)


def kill_at_random(process: BaseProcess, folder: Path, chance: random.Random, *, in_training: bool) -> None:
    """Wait until training goes on, or not, then a random while; then kill."""
    before, deadline = max(step_of(folder), 0), time.monotonic() + 60
    while in_training and step_of(folder) <= before and time.monotonic() < deadline:
        time.sleep(0.005)
    process.join(chance.uniform(0, 0.1 if in_training else 0.8))
    process.kill()
    process.join()
    assert process.exitcode == -9, "it ended before it was killed"
    assert step_of(folder) > before or not in_training


@pytest.mark.parametrize("kills", [3, pytest.param(16, marks=pytest.mark.slow)])
def test_a_run_that_is_killed_again_and_again_ends_as_the_one_that_was_not(
    kills, begin_process, model, corpus, tmp_path, assert_same_bits
):
    # not a multiple of three: the last two checkpoints are one step apart.
    steps, chance = 15 * kills + 1, random.Random(kills)
    peaceful, killed = tmp_path / "peaceful", tmp_path / "killed"
    begin_process(command(peaceful, model, corpus, steps)).join()
    for kill in range(kills):
        process = begin_process(command(killed, model, corpus, steps))
        kill_at_random(process, killed, chance, in_training=kill % 3 != 1)
        if (killed / "trace.zarr" / "zarr.json").exists():
            open_trace(killed / "trace.zarr")
    assert step_of(killed) < steps
    begin_process(command(killed, model, corpus, steps)).join()
    assert list(losses(killed)) == list(range(1, steps + 1))
    assert losses(killed) == losses(peaceful)
    expected = state_at(peaceful, steps)
    assert_same_bits(state_at(killed, steps), expected)
    # what is compared does tell one step from the next.
    earlier = state_at(killed, steps - 1)
    assert not any(earlier[name].equal(tensor) for name, tensor in expected.items() if name.endswith("gate.weight"))
    left = [path.name for path in (*tmp_path.iterdir(), *killed.rglob(".*"), *killed.rglob("*.lock"))]
    assert sorted(left) == ["killed", "model", "peaceful"]

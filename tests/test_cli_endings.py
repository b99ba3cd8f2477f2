"""How the command line ends: bugs, warnings, closed pipes, Ctrl-C; and how quickly it begins."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from workbench import commands
from workbench.cli import main
from workbench.core import Spec
from workbench.data import load_tokenizer
from workbench.model import ModelConfig
from workbench.model.transformer import Transformer, initialise
from workbench.model.weights import save_model
from workbench.trace import open_trace
from workbench.train.checkpoint import checkpoints, read_checkpoint

CORPUS = "token_remap:num_domains=2,documents=1"
SETTINGS = ("batch_size=4", "sequence_length=16", "checkpoint_every=4", "dtype=float32")
SET = [word for setting in SETTINGS for word in ("--set", setting)]


@pytest.fixture(scope="module", autouse=True)
def cache_home(tmp_path_factory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """A model of width 32 in a folder, with its tokenizer."""
    sizes = {"width": 32, "num_layers": 2, "num_heads": 2, "num_kv_heads": 1, "head_dim": 16}
    shape = ModelConfig(vocab_size=257, num_experts=4, expert_width=32, router=Spec("top_k"), **sizes)
    folder = tmp_path_factory.mktemp("model")
    save_model(initialise(Transformer(shape), 0), folder)
    load_tokenizer("byte").save(folder)
    return folder


@pytest.mark.parametrize("bug", [KeyError("x"), IndexError("x"), AssertionError("x"), ZeroDivisionError("x")])
def test_a_mistake_of_ours_keeps_its_traceback(bug, monkeypatch):
    def broken(what):
        raise bug

    monkeypatch.setattr(commands, "listing", broken)
    with pytest.raises(type(bug)):
        main(["list", "routers"])


@pytest.mark.filterwarnings("default:.*holds no tokenizer:UserWarning")
def test_a_warning_is_one_line(model, tmp_path, capsys):
    bare = shutil.copytree(model, tmp_path / "bare")
    for file in bare.glob("tokenizer*"):
        file.unlink()
    words = ["--model", bare, "--corpus", CORPUS, "--steps", "0", "--out", tmp_path / "a"]
    assert main(["train", *map(str, words)]) == 0
    shown = capsys.readouterr().err.splitlines()
    [line] = [line for line in shown if line.startswith("workbench: warning: ")]
    assert line.startswith(f"workbench: warning: {bare} holds no tokenizer.json, so text is read byte by byte")


def test_a_reader_that_has_enough_is_no_error(monkeypatch, capfd):
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as closed:
        monkeypatch.setattr(sys, "stdout", closed)
        assert main(["list", "presets", "--json"]) == 0
        monkeypatch.undo()
    assert capfd.readouterr().err == ""


def test_an_interrupt_ends_with_130(monkeypatch, capsys):
    def interrupted(what):
        raise KeyboardInterrupt

    monkeypatch.setattr(commands, "listing", interrupted)
    assert main(["list", "routers"]) == 130
    assert capsys.readouterr().err == "workbench: interrupted\n"


def test_ctrl_c_in_training_saves_the_step_and_says_how_to_go_on(model, tmp_path):
    words = [
        "train",
        "--model",
        str(model),
        "--corpus",
        CORPUS,
        *SET,
        "--steps",
        "1000000",
        "--out",
        str(tmp_path / "a"),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "workbench.cli", *words]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        deadline = time.monotonic() + 120
        while not (tmp_path / "a" / "checkpoints" / "step_00000004").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        _, shown = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in shown
    [newest] = checkpoints(tmp_path / "a" / "checkpoints")[-1:]
    _, state = read_checkpoint(newest)
    assert state.step >= 4
    assert f"stopped at step {state.step}; go on: workbench train --resume {tmp_path / 'a'} --steps 1000000" in shown
    trace = open_trace(tmp_path / "a" / "trace.zarr")
    assert trace["run"]["step"].values.tolist() == list(range(1, state.step + 1))
    assert not list((tmp_path / "a").rglob("*.lock"))


def test_help_is_quick_and_loads_nothing_heavy(tmp_path):
    probe = (
        "import sys\nsys.argv = ['workbench', '--help']\nimport workbench.cli\n"
        "try:\n    workbench.cli.main()\nexcept SystemExit as end:\n    assert end.code == 0\n"
        "print([name for name in ('torch', 'numpy', 'xarray', 'zarr', 'rich') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, cwd=tmp_path, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    for name in ("demo", "train", "generate", "trace", "report", "list", "doctor"):
        assert f"    {name} " in done.stdout

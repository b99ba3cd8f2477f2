"""A checkpoint is whole or absent, whatever happens while it is written."""

import errno
import json
import resource
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from workbench.core.records import ControlEvent
from workbench.model.transformer import Transformer, initialise
from workbench.train import checkpoint as checkpoint_module
from workbench.train.checkpoint import (
    CheckpointError,
    TrainState,
    checkpoints,
    load_optimizer,
    read_checkpoint,
    repair,
    save_checkpoint,
)
from workbench.train.config import TrainConfig
from workbench.train.optim import build_optimizer, named_states

EVENT = ControlEvent(
    op="swap_router",
    args={"name": "switch", "args": {"jitter": 0.5}},
    time_ns=1,
    actor="python",
    accepted_step=2,
    applied_step=3,
    result="done",
)
STATE = TrainState(step=3, tokens=48, trained_seconds=0.5, events=(EVENT,))


@pytest.fixture
def model(shape) -> Transformer:
    return initialise(Transformer(shape), 0)


@pytest.fixture
def optimizer(model) -> torch.optim.AdamW:
    made = build_optimizer(model, TrainConfig())
    model(torch.arange(8)[None]).logits.square().sum().backward()
    made.step()
    return made


@pytest.fixture
def save(model, optimizer, tmp_path):
    def write(step: int, keep: int = 9):
        return save_checkpoint(tmp_path, model, optimizer, replace(STATE, step=step), keep=keep)

    return write


def names(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_everything_comes_back_bit_for_bit(save, model, optimizer, assert_same_bits):
    path = save(3)
    again, state = read_checkpoint(path)
    assert state == STATE
    assert again.config == model.config
    assert_same_bits(again.state_dict(), model.state_dict())
    fresh = build_optimizer(again, TrainConfig())
    load_optimizer(path, again, fresh)
    assert_same_bits(named_states(again, fresh), named_states(model, optimizer))


def test_a_step_and_an_event_leave_the_rest_of_the_state():
    assert STATE.after_step(16, 0.25) == TrainState(step=4, tokens=64, trained_seconds=0.75, events=(EVENT,))
    assert STATE.after_event(EVENT) == replace(STATE, events=(EVENT, EVENT))


def test_only_the_newest_are_kept(save, tmp_path):
    for step in (1, 2, 9, 10, 100):
        save(step, keep=3)
    assert names(tmp_path) == ["step_00000009", "step_00000010", "step_00000100"]
    assert [path.name for path in checkpoints(tmp_path)] == names(tmp_path)


def test_what_is_no_checkpoint_is_not_listed(save, tmp_path):
    save(5)
    for name in ("step_00000006", "step_best", ".step_00000007.part-1"):
        (tmp_path / name).mkdir()
    (tmp_path / "step_best" / "state.json").write_text("{}")
    assert [path.name for path in checkpoints(tmp_path)] == ["step_00000005"]
    assert checkpoints(tmp_path / "nowhere") == []


def test_a_step_saved_again_replaces_the_first(save, model, tmp_path):
    save(5)
    model.norm.weight.data.fill_(7)
    again, _ = read_checkpoint(save(5))
    assert again.norm.weight.tolist() == [7.0] * 32
    assert names(tmp_path) == ["step_00000005"]


def test_what_killed_writers_left_is_cleared_away(save, tmp_path):
    (tmp_path / ".step_00000004.part-123").mkdir(parents=True)
    (tmp_path / ".step_00000004.part-123" / "model.safetensors").write_bytes(b"half")
    save(5)
    assert names(tmp_path) == ["step_00000005"]


def test_a_writer_killed_between_the_two_renames_loses_nothing(save, tmp_path):
    save(5).rename(tmp_path / ".step_00000005.aside")
    repair(tmp_path)
    assert names(tmp_path) == ["step_00000005"]
    assert read_checkpoint(tmp_path / "step_00000005")[1].step == 5


def test_a_writer_killed_after_both_renames_leaves_the_newer_one(save, model, tmp_path):
    save(5).rename(tmp_path / ".step_00000005.aside")
    (tmp_path / ".step_00000005.aside").rename(tmp_path / "old")
    model.norm.weight.data.fill_(7)
    save(5)
    (tmp_path / "old").rename(tmp_path / ".step_00000005.aside")
    repair(tmp_path)
    assert names(tmp_path) == ["step_00000005"]
    assert read_checkpoint(tmp_path / "step_00000005")[0].norm.weight.tolist() == [7.0] * 32


@pytest.mark.parametrize("fails", ["save_model", "write_tensors", "write_json"])
def test_a_full_disk_leaves_the_older_ones_and_says_so(fails, save, tmp_path, monkeypatch):
    older = save(5)
    original = vars(checkpoint_module)[fails]

    def full(*arguments):
        original(*arguments)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint_module, fails, full)
    with pytest.raises(CheckpointError) as refused:
        save(6)
    text = str(refused.value)
    assert text.startswith(f"could not write checkpoint {tmp_path / 'step_00000006'} ([Errno 28] No space left")
    assert f"the last good checkpoint is {older}; free some space and resume" in text
    assert names(tmp_path) == ["step_00000005"]
    assert read_checkpoint(older)[1].step == 5


@pytest.mark.parametrize("room_bytes", [60_000, 250_000])
def test_a_file_that_the_system_cuts_short_leaves_the_older_ones(room_bytes, save, tmp_path):
    # a limit on file sizes is as near to a full disk as an ordinary user gets: weights fail, or the optimiser.
    older = save(5)
    assert [(older / f"{name}.safetensors").stat().st_size > room_bytes for name in ("optimizer", "model")] == [
        True,
        room_bytes < 100_000,
    ]
    usual = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room_bytes, usual[1]))
    try:
        with pytest.raises(CheckpointError, match=rf"File too large.*; the last good checkpoint is {older}"):
            save(6)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)
    assert names(tmp_path) == ["step_00000005"]
    assert read_checkpoint(older)[1].step == 5


def test_a_disk_that_fills_while_a_step_is_saved_again_keeps_the_first(save, tmp_path, monkeypatch):
    save(5)

    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint_module, "write_json", full)
    with pytest.raises(CheckpointError):
        save(5)
    assert names(tmp_path) == ["step_00000005"]
    read_checkpoint(tmp_path / "step_00000005")


def test_a_disk_that_fails_at_the_last_moment_gives_the_first_back(save, tmp_path, monkeypatch):
    save(5)

    rename = Path.replace

    def broken(self, target):
        if target.name == "step_00000005":
            raise OSError(errno.EIO, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "replace", broken)
    with pytest.raises(CheckpointError, match="Input/output error"):
        save(5)
    assert names(tmp_path) == ["step_00000005"]
    read_checkpoint(tmp_path / "step_00000005")


def test_the_first_failure_says_that_there_is_no_earlier_one(save, monkeypatch):
    monkeypatch.setattr(checkpoint_module, "save_model", lambda *arguments: (_ for _ in ()).throw(OSError("broken")))
    with pytest.raises(CheckpointError, match=r"\(broken\); there is no earlier checkpoint"):
        save(5)


@pytest.mark.parametrize("file", ["model.safetensors", "optimizer.safetensors", "model.json"])
def test_one_changed_byte_is_found_and_named(file, save):
    path = save(5)
    data = bytearray((path / file).read_bytes())
    data[-40] ^= 1
    (path / file).write_bytes(data)
    with pytest.raises(ValueError, match=f"{file} is damaged: its content is not what was written"):
        read_checkpoint(path)


def test_a_truncated_and_a_missing_file_are_named(save):
    path = save(5)
    model = path / "model.safetensors"
    model.write_bytes(model.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"model\.safetensors is damaged"):
        read_checkpoint(path)
    model.unlink()
    with pytest.raises(ValueError, match=r"model\.safetensors is missing"):
        read_checkpoint(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", r"state\.json is damaged"),
        ("[]", r"state\.json must hold a JSON object"),
        ('{"format": "moe-workbench.checkpoint/9"}', "must have format 'moe-workbench.checkpoint/1'"),
    ],
)
def test_a_damaged_state_is_named(content, message, save):
    path = save(5)
    (path / "state.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        read_checkpoint(path)


def test_a_state_that_lacks_something_is_refused(save):
    path = save(5)
    saved = json.loads((path / "state.json").read_text())
    del saved["state"]["events"]
    (path / "state.json").write_text(json.dumps(saved))
    with pytest.raises(ValueError, match="must have step, tokens and events"):
        read_checkpoint(path)


def test_an_optimiser_of_another_model_is_refused(save, shape):
    path = save(5)
    other = initialise(Transformer(replace(shape, num_layers=1)), 0)
    with pytest.raises(ValueError, match=r"state for 'blocks\.1\..*', which does not fit this model"):
        load_optimizer(path, other, build_optimizer(other, TrainConfig()))

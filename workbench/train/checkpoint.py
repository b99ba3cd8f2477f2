"""Checkpoints: written beside and renamed, so that one is either whole or absent."""

import re
import shutil
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from workbench.core.records import ControlEvent
from workbench.model.tensor_files import read_json, write_json, write_tensors, written_beside
from workbench.model.transformer import Transformer
from workbench.model.weights import load_model, save_model
from workbench.train.optim import named_states

__all__ = [
    "CheckpointError",
    "TrainState",
    "checkpoints",
    "forget_after",
    "load_optimizer",
    "read_checkpoint",
    "repair",
    "save_checkpoint",
    "write_checkpoint",
]

_FORMAT = "moe-workbench.checkpoint/1"
_STATE, _OPTIMIZER = "state.json", "optimizer.safetensors"
_STEP = re.compile(r"step_(\d+)")
_BLOCK_BYTES = 1 << 22


class CheckpointError(OSError):
    """A checkpoint could not be written; every earlier one is untouched."""


@dataclass(frozen=True, kw_only=True)
class TrainState:
    """What a trainer must remember beside its model and optimiser.

    Args:
        step: optimiser steps done.
        tokens: training tokens seen.
        trained_seconds: time spent in training steps [s].
        events: what was done to the run.
    """

    step: int = 0
    tokens: int = 0
    trained_seconds: float = 0.0
    events: tuple[ControlEvent, ...] = ()

    def after_step(self, tokens: int, seconds: float) -> "TrainState":
        """The state one step later, which saw so many tokens and took so long."""
        spent = self.trained_seconds + seconds
        return replace(self, step=self.step + 1, tokens=self.tokens + tokens, trained_seconds=spent)

    def after_event(self, event: ControlEvent) -> "TrainState":
        """The state with one more event."""
        return replace(self, events=(*self.events, event))

    def to_json(self) -> dict[str, Any]:
        """The state as plain data."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "TrainState":
        """The state saved by `to_json`.

        Raises:
            ValueError: something is missing, or unknown to this version.
        """
        try:
            return cls(**{**data, "events": tuple(ControlEvent(**event) for event in data["events"])})
        except (KeyError, TypeError) as error:
            raise ValueError(f"the state of the training must have step, tokens and events: {error}") from error


def checkpoints(folder: Path) -> list[Path]:
    """Whole checkpoints in a folder, oldest first."""
    found = {path: _STEP.fullmatch(path.name) for path in folder.glob("step_*") if (path / _STATE).is_file()}
    return sorted((path for path, match in found.items() if match), key=lambda path: int(path.name[5:]))


def save_checkpoint(
    folder: Path, model: Transformer, optimizer: torch.optim.AdamW, state: TrainState, *, keep: int | None
) -> Path:
    """The folder of a new checkpoint; older ones beyond `keep` are removed afterwards.

    Raises:
        CheckpointError: the disk is full or not writable; every earlier checkpoint is untouched.
    """
    final = folder / f"step_{state.step:08d}"
    try:
        repair(folder)
        with written_beside(final) as part:
            write_checkpoint(part, model, optimizer, state)
            if final.exists():
                final.rename(_aside(final))
    except OSError as error:
        repair(folder)
        found = checkpoints(folder)
        last = f"the last good checkpoint is {found[-1]}" if found else "there is no earlier checkpoint"
        raise CheckpointError(
            f"could not write checkpoint {final} ({_first_cause(error)}); {last}; free some space and resume"
        ) from error
    repair(folder)
    for old in [] if keep is None else checkpoints(folder)[:-keep]:
        shutil.rmtree(old, ignore_errors=True)
    return final


def write_checkpoint(folder: Path, model: Transformer, optimizer: torch.optim.AdamW, state: TrainState) -> None:
    """Fill a new folder with model, optimiser and state, with a checksum of every file.

    Raises:
        OSError: the disk is full or not writable.
    """
    folder.mkdir(parents=True)
    save_model(model, folder)
    write_tensors(
        folder / _OPTIMIZER, {name: tensor.detach() for name, tensor in named_states(model, optimizer).items()}
    )
    checksums = {path.name: _checksum(path) for path in sorted(folder.iterdir())}
    write_json(folder / _STATE, {"format": _FORMAT, "checksums": checksums, "state": state.to_json()})


def repair(folder: Path) -> None:
    """Clear away what killed writers left; a checkpoint that was about to be replaced comes back.

    Only the writer of the run may call this.
    """
    for part in folder.glob(".step_*.part-*"):
        shutil.rmtree(part, ignore_errors=True)
    for old in folder.glob(".step_*.aside"):
        final = folder / old.name.removeprefix(".").removesuffix(".aside")
        if final.exists():
            shutil.rmtree(old, ignore_errors=True)
        else:
            old.rename(final)


def forget_after(newest: Path | None) -> None:
    """Remove the checkpoints of later steps than this one, as when training goes back.

    Raises:
        OSError: the folder cannot be changed.
    """
    later = [] if newest is None else [path for path in checkpoints(newest.parent) if path.name > newest.name]
    for path in later:
        shutil.rmtree(path)


def read_checkpoint(path: Path) -> tuple[Transformer, TrainState]:
    """The model and the trainer's state of a checkpoint.

    Raises:
        ValueError: a file is missing or damaged; the message names it.
    """
    saved = read_json(path / _STATE)
    if saved.get("format") != _FORMAT or not isinstance(saved.get("checksums"), dict):
        raise ValueError(f"{path / _STATE} must have format {_FORMAT!r}; it was written by another version")
    for name, expected in saved["checksums"].items():
        if not (path / name).is_file():
            raise ValueError(f"{path / name} is missing")
        if _checksum(path / name) != expected:
            raise ValueError(f"{path / name} is damaged: its content is not what was written")
    return load_model(path), TrainState.from_json(saved["state"])


def load_optimizer(path: Path, model: Transformer, optimizer: torch.optim.AdamW) -> None:
    """Fill the optimiser from a checkpoint.

    Raises:
        ValueError: the file is damaged, or holds the state of another model.
    """
    try:
        tensors = load_file(path / _OPTIMIZER)
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{path / _OPTIMIZER} is damaged: {error}") from error
    parameters = dict(model.named_parameters())
    for name, value in tensors.items():
        owner, _, field = name.rpartition("|")
        if owner not in parameters or value.shape not in ((), parameters[owner].shape):
            raise ValueError(f"{path / _OPTIMIZER} has state for {owner!r}, which does not fit this model")
        optimizer.state[parameters[owner]][field] = value.to(parameters[owner].device)


def _first_cause(error: BaseException) -> BaseException:
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def _aside(final: Path) -> Path:
    return final.with_name(f".{final.name}.aside")


def _checksum(path: Path) -> int:
    total = 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            total = zlib.crc32(block, total)
    return total

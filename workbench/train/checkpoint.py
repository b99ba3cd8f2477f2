"""Checkpoints: written beside and renamed, so that one is either whole or absent."""

import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from workbench.model.transformer import Transformer
from workbench.model.weights import load_model, save_model
from workbench.train.optim import named_states

__all__ = ["checkpoints", "load_optimizer", "read_checkpoint", "save_checkpoint", "write_json"]

_STATE, _OPTIMIZER = "state.json", "optimizer.safetensors"


def checkpoints(folder: Path) -> list[Path]:
    """Whole checkpoints in a folder, oldest first."""
    found = [p for p in folder.glob("step_*") if (p / _STATE).is_file()] if folder.is_dir() else []
    return sorted(found, key=lambda p: int(p.name.removeprefix("step_")))


def save_checkpoint(
    folder: Path, step: int, model: Transformer, optimizer: torch.optim.AdamW, state: dict[str, Any], *, keep: int
) -> Path:
    """The folder of a new checkpoint; older ones beyond `keep` are removed afterwards.

    Raises:
        OSError: the disk is full or not writable; every earlier checkpoint is untouched.
    """
    final = folder / f"step_{step:08d}"
    part = folder / f".{final.name}.part-{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob(".step_*.part-*"):
            shutil.rmtree(old, ignore_errors=True)
        part.mkdir()
        save_model(model, part)
        save_file({k: v.detach().contiguous() for k, v in named_states(model, optimizer).items()}, part / _OPTIMIZER)
        write_json(part / _STATE, state)
        _sync(part.iterdir())
        if final.exists():
            shutil.rmtree(final)
        part.rename(final)
        _sync([folder])
    except (OSError, SafetensorError) as error:
        shutil.rmtree(part, ignore_errors=True)
        last = checkpoints(folder)
        kept = f"the last good checkpoint is {last[-1]}" if last else "there was no earlier checkpoint"
        raise OSError(f"could not write checkpoint {final}: {error}; {kept}; free some space and resume") from error
    for old in checkpoints(folder)[:-keep]:
        shutil.rmtree(old, ignore_errors=True)
    return final


def read_checkpoint(path: Path) -> tuple[Transformer, dict[str, Any]]:
    """The model and the trainer's state of a checkpoint.

    Raises:
        ValueError: a file is damaged; the message names it.
    """
    try:
        state: dict[str, Any] = json.loads((path / _STATE).read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise ValueError(f"{path / _STATE} is damaged ({error}); remove {path} and resume from an older one") from error
    return load_model(path), state


def load_optimizer(path: Path, model: Transformer, optimizer: torch.optim.AdamW) -> None:
    """Fill the optimiser from a checkpoint.

    Raises:
        ValueError: the file is damaged, or holds the state of another model.
    """
    try:
        tensors = load_file(path / _OPTIMIZER)
    except (OSError, SafetensorError) as error:
        raise ValueError(
            f"{path / _OPTIMIZER} is damaged ({error}); remove {path} and resume from an older one"
        ) from error
    parameters = dict(model.named_parameters())
    for name, value in tensors.items():
        parameter, _, field = name.rpartition("|")
        if parameter not in parameters or value.shape not in ((), parameters[parameter].shape):
            raise ValueError(f"{path / _OPTIMIZER} has state for {parameter!r}, which this model does not have")
        optimizer.state[parameters[parameter]][field] = value.to(parameters[parameter].device)


def write_json(path: Path, data: Any) -> None:
    """Write plain data beside and rename."""
    part = path.with_name(f".{path.name}.part-{os.getpid()}")
    part.write_text(json.dumps(data, indent=1) + "\n")
    part.replace(path)


def _sync(paths: Iterable[Path]) -> None:
    for path in paths:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

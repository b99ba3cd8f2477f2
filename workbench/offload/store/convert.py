"""From a checkpoint to a store of experts, one expert at a time."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import reduce
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from workbench.core.records import ExpertKey
from workbench.core.spec import Spec
from workbench.model.pieces import Piece, state_of, view_of
from workbench.model.transformer import Transformer
from workbench.model.weights import ModelSource, load
from workbench.offload.calibration import calibrate, calibration_name
from workbench.offload.store.blocks import parts_of
from workbench.offload.store.encoding import EXACT
from workbench.offload.store.expert_store import ExpertStore, write_store

__all__ = ["convert", "convert_model", "converted", "identity_of", "is_expert", "stamp_of", "stored_as"]


def convert_model(
    model: Transformer, folder: Path, *, format: Spec = EXACT, calibration: Sequence[int] | None = None
) -> None:
    """Write the experts of a model in memory, as they are now.

    Args:
        calibration: tokens of a text whose inputs the format takes into account.

    Raises:
        LookupError: unknown format.
        ValueError: a model without experts, or with some that the format cannot hold.
        OSError: the disk is full or not writable; nothing is left behind.
    """
    layers = list(model.moe_layers())
    if not layers:
        raise ValueError("this model has no layer with experts; there is nothing to offload")
    write_store(
        folder,
        (
            (ExpertKey(layer.layer, expert), [tensor[expert] for tensor in layer.experts.tensors()])
            for layer in layers
            for expert in range(layer.experts.num_experts)
        ),
        parts_of([tensor[0] for tensor in layers[0].experts.tensors()]),
        num_layers=len(layers),
        num_experts=layers[0].experts.num_experts,
        source="a model in memory",
        format=format,
        calibration=None if calibration is None else calibrate(model, calibration),
    )


def convert(
    source: ModelSource,
    folder: Path,
    *,
    format: Spec = EXACT,
    calibration: Sequence[int] | None = None,
    on_expert: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Write the experts of a checkpoint as blocks, one expert at a time.

    Args:
        calibration: tokens of a text whose inputs the format takes into account; while it is read the whole model
            is in memory.

    Raises:
        LookupError: unknown format.
        ValueError: a model without experts, or a checkpoint that lacks some or whose tensors do not fit.
        OSError: the disk is full or not writable; nothing is left behind.
    """
    config = source.model.config
    if not config.moe_layers:
        raise ValueError(f"{source.folder} has no layer with experts; there is nothing to offload")
    experts = _experts(source)
    first = next(experts)
    shape = parts_of(first[1])
    total = len(config.moe_layers) * config.num_experts

    def all_of_them() -> Iterator[tuple[ExpertKey, Sequence[Tensor]]]:
        yield first
        yield from experts

    write_store(
        folder,
        all_of_them(),
        shape,
        num_layers=len(config.moe_layers),
        num_experts=config.num_experts,
        source=stored_as(identity_of(source), format, calibration),
        format=format,
        calibration=None if calibration is None else calibrate(load(source.folder).eval(), calibration),
        about={"model": config.to_json()},
        on_expert=lambda done: on_expert(done, total),
    )


def _experts(source: ModelSource) -> Iterator[tuple[ExpertKey, list[Tensor]]]:
    """Every expert of a checkpoint, read on its own."""
    by_target: dict[str, list[Piece]] = {}
    for piece in source.pieces:
        by_target.setdefault(piece.target, []).append(piece)
    _check(source)
    for layer in source.model.moe_layers():
        names = {id(parameter): name for name, parameter in layer.experts.named_parameters()}
        targets = [f"{layer.name}.experts.{names[id(tensor)]}" for tensor in layer.experts.tensors()]
        for expert in range(layer.experts.num_experts):
            tensors = [
                _one(source, tensor, by_target[target], expert)
                for target, tensor in zip(targets, layer.experts.tensors(), strict=True)
            ]
            yield ExpertKey(layer.layer, expert), tensors


def _one(source: ModelSource, like: Tensor, pieces: Sequence[Piece], expert: int) -> Tensor:
    own = [piece for piece in pieces if not piece.part or piece.part[0] == expert]
    # the file is mapped: of a stacked tensor only this expert's part is read.
    parts = [(piece.part[1:], source.files.read(piece.name)) for piece in own]
    # as `load` does, where the tensors of a stack differ.
    dtype = reduce(torch.promote_types, {source.files.dtype(piece.name) for piece in pieces})
    out = torch.empty(like.shape[1:], dtype=dtype)
    for piece, (part, stored) in zip(own, parts, strict=True):
        out[part] = stored if piece.part else stored[expert]
    return out


def _check(source: ModelSource) -> None:
    state = state_of(source.model)
    for piece in source.pieces:
        if not is_expert(piece):
            continue
        expected = view_of(state, piece).shape
        got = source.files.shape(piece.name) if piece.name in source.files else None
        if got != expected:
            raise ValueError(
                f"{source.folder} must hold {piece.name} with shape {tuple(expected)}, got "
                f"{'none' if got is None else tuple(got)}; the weights are incomplete or belong to another model"
            )


def is_expert(piece: Piece) -> bool:
    """Whether a piece of a checkpoint belongs to an expert that a router chooses."""
    return ".feed_forward.experts." in piece.target


def identity_of(source: ModelSource) -> str:
    """Names the weights of a checkpoint: by its configuration, and size and time of every file."""
    return stamp_of(sorted(source.folder.glob("*.safetensors")), source.model.config.to_json())


def stamp_of(files: Iterable[Path], about: Any = None) -> str:
    """A short name that changes with the size and time of any file, and with what else is given as plain data."""
    stamps = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return sha256(json.dumps([about, stamps], sort_keys=True).encode()).hexdigest()[:32]


def stored_as(identity: str, format: Spec, calibration: Sequence[int] | None = None) -> str:
    """Names the experts of a store: weights, the format they are in, and the text that they were calibrated on."""
    name = identity if format == EXACT else f"{identity} as {format}"
    return name if calibration is None else f"{name} calibrated on {calibration_name(calibration)}"


def converted(
    usual: Path,
    named: Path | None,
    identity: str,
    convert_into: Callable[[Path], None],
    *,
    format: Spec = EXACT,
    calibration: Sequence[int] | None = None,
) -> ExpertStore:
    """The store of some weights in a format, converted if it is not there.

    Args:
        usual: where it lies when nobody says otherwise, each format in a folder of its own beside it; a store of
            other weights, other arguments or another calibration text there is replaced.
        named: a place that a person chose; what is there is never overwritten, and refused if it is another's.

    Raises:
        ValueError: a damaged store, or one of other weights, format or calibration, at a named place.
        OSError: the disk is full or not writable.
    """
    beside = usual if format == EXACT else usual.with_name(f"{usual.name}-{format.name}")
    folder, identity = beside if named is None else named, stored_as(identity, format, calibration)
    is_there = folder.exists() if named is not None else ExpertStore.is_of(folder, identity)
    if not is_there:
        convert_into(folder)
    return ExpertStore(folder, source=identity)

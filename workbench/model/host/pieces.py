"""Where each expert of a checkpoint lies in its files, so that it can be read without the others."""

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Size, Tensor

from workbench.core.records import ExpertKey
from workbench.model.host.layers import HostLayer, find_layers
from workbench.model.host.loading import empty_model, host_config
from workbench.model.host.sources import Source, sources_of
from workbench.model.tensor_files import TensorFiles

__all__ = ["ExpertPart", "expert_pieces", "read_expert"]

Index = tuple[int | slice, ...]

_Place = tuple[str, Index]


class ExpertPart(NamedTuple):
    """A stored tensor, or a slice of one, that is a part of one expert.

    Args:
        name: of the stored tensor.
        at: index into the stored tensor; empty for the whole.
        parameter: of the experts' module. Parts of one parameter follow each other, and lie end to end along its
            first dimension, so their bytes in order are the parameter's.
        is_transposed: the two dimensions are stored in the other order.
    """

    name: str
    at: Index
    parameter: str
    is_transposed: bool = False


def expert_pieces(path: Path | str) -> Mapping[ExpertKey, tuple[ExpertPart, ...]]:
    """For every expert the parts that in order equal the experts module's own parameters, cut to that expert.

    Layers are counted among the MoE layers. Nothing but the headers of the files is read.

    Raises:
        FileNotFoundError: no such folder, no configuration or no weights in it.
        ValueError: not an MoE model that can be a host, damaged files, or experts stored in a form that is not
            known: quantised, or mixed with one another.
    """
    folder, config = host_config(path)
    model = empty_model(config, dtype=None)
    pieces: dict[ExpertKey, tuple[ExpertPart, ...]] = {}
    with TensorFiles(folder) as files:
        sources = sources_of(model, files.names()).of
        for layer in find_layers(model):
            columns = [_column(files, layer, name, shape, sources) for name, shape in layer.shapes.items()]
            for expert in range(layer.num_experts):
                parts = tuple(part for column in columns for part in column(expert))
                _check(files, layer, expert, parts)
                pieces[ExpertKey(layer.index, expert)] = parts
    return pieces


def read_expert(files: TensorFiles, parts: Sequence[ExpertPart]) -> dict[str, Tensor]:
    """One expert's tensors by the name of the parameter, in the files' dtype; they own their memory."""
    tensors: dict[str, list[Tensor]] = {}
    for part in parts:
        stored = files.read(part.name)[part.at]
        tensors.setdefault(part.parameter, []).append(stored.transpose(-2, -1) if part.is_transposed else stored)
    return {name: torch.cat(several) for name, several in tensors.items()}


def _column(
    files: TensorFiles, layer: HostLayer, parameter: str, shape: Size, sources: Mapping[str, Source]
) -> Callable[[int], tuple[ExpertPart, ...]]:
    """The parts of one parameter, by expert."""
    target = f"{layer.name}.{parameter}"
    if target not in sources:
        raise ValueError(f"{files.folder} lacks {target}, the experts of MoE layer {layer.index}; copy it again")
    source = sources[target]
    operations = () if source.converter is None else tuple(source.converter.operations)
    patterns = source.names if source.converter is None else source.converter.source_patterns
    absent = [pattern for pattern in patterns if pattern not in source.names]
    if absent:
        raise ValueError(f"{files.folder} lacks the tensors {absent[0]} of {target}; copy it again")
    kinds = [_kind(operation) for operation in operations]
    is_listed = kinds[:1] == ["merge"]
    rest = kinds[1:] if is_listed else kinds
    # put together, experts have their own dimension in front: 1 there is the first of an expert.
    is_known = rest in ([], ["concatenate"], ["transpose"]) and (rest == ["concatenate"]) == (len(patterns) > 1)
    if not is_known:
        raise ValueError(
            f"the experts {target} are stored for {[type(one).__name__ for one in operations]} of transformers, which "
            "cannot be taken one expert at a time; load the model with_experts=True"
        )
    lists = [source.names[pattern] for pattern in patterns]
    expected = layer.num_experts if is_listed else 1
    for names in lists:
        if len(names) != expected:
            raise ValueError(
                f"{files.folder} must hold {expected} tensors for {target}, got {len(names)} such as {names[0]}; "
                "copy it again"
            )

    def parts(expert: int) -> tuple[ExpertPart, ...]:
        places: list[_Place] = [(names[expert], ()) if is_listed else (names[0], (expert,)) for names in lists]
        return tuple(ExpertPart(name, index, parameter, rest == ["transpose"]) for name, index in places)

    return parts


def _kind(operation: Any) -> str:
    known = import_module("transformers.core_model_loading")
    if isinstance(operation, known.MergeModulelist) and operation.dim == 0:
        return "merge"
    if isinstance(operation, known.Concatenate) and operation.dim == 1:
        return "concatenate"
    if isinstance(operation, known.Transpose) and not operation.check_dims:
        return "transpose" if {operation.dim0 % 3, operation.dim1 % 3} == {1, 2} else "other"
    return "other"


def _check(files: TensorFiles, layer: HostLayer, expert: int, parts: Sequence[ExpertPart]) -> None:
    for parameter, shape in layer.shapes.items():
        own = [_shape(files, part) for part in parts if part.parameter == parameter]
        got = (sum(one[0] for one in own), *own[0][1:])
        if got != tuple(shape) or any(one[1:] != own[0][1:] for one in own):
            raise ValueError(
                f"{parameter} of expert {expert} in MoE layer {layer.index} must have shape {tuple(shape)}, got {got} "
                f"from {files.folder}; the configuration beside it belongs to another model"
            )


def _shape(files: TensorFiles, part: ExpertPart) -> tuple[int, ...]:
    shape = tuple(files.shape(part.name))[len(part.at) :]
    return (*shape[:-2], shape[-1], shape[-2]) if part.is_transposed else shape

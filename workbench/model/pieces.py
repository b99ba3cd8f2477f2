"""Which stored tensor fills which part of a model, and filling it from files without a second copy."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from workbench.core.check import one_of
from workbench.model.tensor_files import TensorFiles
from workbench.model.transformer import Transformer

__all__ = ["Piece", "fill", "state_of", "view_of", "whole_pieces"]

Index = tuple[int | slice, ...]

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "float64": torch.float64}
_MOST_NAMED = 3


class Piece(NamedTuple):
    """A stored tensor and the part of the model's state that it is.

    Args:
        name: of the stored tensor.
        target: name in the model's state.
        part: index into the target; empty for the whole.
    """

    name: str
    target: str
    part: Index = ()


def state_of(model: Transformer) -> dict[str, Tensor]:
    """Every parameter and persistent buffer once, under its first name."""
    seen: set[int] = set()
    state = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) not in seen:
            seen.add(id(tensor))
            state[name] = tensor
    return state


def whole_pieces(model: Transformer) -> list[Piece]:
    """One piece for each tensor of the model's state, under its own name: our format."""
    return [Piece(name, name) for name in state_of(model)]


def view_of(state: Mapping[str, Tensor], piece: Piece) -> Tensor:
    """The part of the model that a piece stands for; it shares the model's memory."""
    return state[piece.target].data[piece.part]


def fill(
    model: Transformer,
    files: TensorFiles,
    pieces: Sequence[Piece],
    *,
    dtype: torch.dtype | str | None,
    device: torch.device | str,
    ignored: Collection[str] = (),
) -> Transformer:
    """The model with its weights from files, read one tensor at a time.

    Args:
        model: freshly constructed; its large tensors have not been written to, so they cost no memory.
        dtype: of the parameters; None keeps what the files have, tensor by tensor.
        ignored: stored tensors that the model does not need.

    Raises:
        ValueError: missing, unexpected or misshapen tensors, or a dtype that is not floating point.
    """
    wanted = _dtype(dtype)
    place = _device(device)
    state = state_of(model)
    _check_names(files, [piece.name for piece in pieces], ignored)
    _check_shapes(files, state, pieces)
    for name, parameter in model.named_parameters():
        own = [piece.name for piece in pieces if piece.target == name] if wanted is None else []
        kept = wanted if wanted is not None else _common(files.dtype(stored) for stored in own)
        parameter.data = torch.empty(parameter.shape, dtype=kept, device=place)
    model.to(place)  # buffers; the parameters are there
    state = state_of(model)
    for piece in pieces:
        view_of(state, piece).copy_(files.read(piece.name))
    return model


def _common(dtypes: Iterable[torch.dtype]) -> torch.dtype:
    first, *others = dtypes
    for other in others:
        first = torch.promote_types(first, other)
    return first


def _check_names(files: TensorFiles, names: Sequence[str], ignored: Collection[str]) -> None:
    missing = [name for name in names if name not in files]
    if missing:
        raise ValueError(
            f"{files.folder} lacks {_some(missing)}, which the configuration beside it asks for; "
            "copy the weights again, or correct the configuration"
        )
    extra = sorted(files.names() - set(names) - set(ignored))
    if extra:
        raise ValueError(
            f"{files.folder} holds {_some(extra)}, which this model has no place for; "
            "the configuration beside it belongs to another model"
        )


def _check_shapes(files: TensorFiles, state: Mapping[str, Tensor], pieces: Sequence[Piece]) -> None:
    for piece in pieces:
        expected, got = view_of(state, piece).shape, files.shape(piece.name)
        if expected != got:
            raise ValueError(
                f"{piece.name} in {files.folder} must have shape {tuple(expected)}, got {tuple(got)}; "
                "the configuration beside it belongs to another model"
            )


def _some(names: Sequence[str]) -> str:
    listed = ", ".join(names[:_MOST_NAMED])
    more = len(names) - _MOST_NAMED
    return f"{len(names)} tensor{'s' if len(names) > 1 else ''} ({listed}{f' and {more} more' if more > 0 else ''})"


def _dtype(dtype: torch.dtype | str | None) -> torch.dtype | None:
    if dtype is None:
        return None
    name = dtype if isinstance(dtype, str) else str(dtype).removeprefix("torch.")
    return _DTYPES[one_of("dtype", name, _DTYPES)]


def _device(device: torch.device | str) -> torch.device:
    try:
        place = torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"device must be cpu or cuda, got {device!r}") from error
    if place.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device {device!r} needs a CUDA GPU that torch can use, and there is none; use 'cpu'")
    return place

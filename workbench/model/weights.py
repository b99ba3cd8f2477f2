"""Weights on disk: our own checkpoints, and the Hugging Face folders of four families."""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from workbench.core.check import at_least
from workbench.model.config import ModelConfig
from workbench.model.folders import CONFIG, FOREIGN_CONFIG, copy_tokenizer, model_folder, special_ids
from workbench.model.hugging_face import family_of, read_config, write_config
from workbench.model.pieces import Piece, fill, state_of, view_of, whole_pieces
from workbench.model.tensor_files import (
    SINGLE,
    TensorFiles,
    read_json,
    write_json,
    write_shards,
    write_tensors,
    written_beside,
)
from workbench.model.tensor_names import fused_marker, pieces_of
from workbench.model.transformer import Transformer

__all__ = ["ModelSource", "export_hugging_face", "load", "load_model", "open_source", "save_model"]

_FORMAT = "moe-workbench.model/1"
_HEAD, _EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"


def load(
    path: Path | str, *, dtype: torch.dtype | str | None = None, device: torch.device | str = "cpu"
) -> Transformer:
    """The model in a Hugging Face folder, a folder of `save_model`, or the newest checkpoint of a run.

    The files are mapped and copied tensor by tensor, so the peak is about one model.

    Args:
        path: Mixtral, OLMoE, Qwen2-MoE or Qwen3-MoE in safetensors; or a run.
        dtype: of the parameters, `float32`, `bfloat16`, `float16` or `float64`; None keeps the files'.

    Raises:
        FileNotFoundError: no such folder, or no model in it.
        ValueError: damaged files, an architecture or option that is not supported, tensors that do not fit.
    """
    with open_source(path) as source:
        return fill(source.model, source.files, source.pieces, dtype=dtype, device=device, ignored=source.ignored)


@dataclass(frozen=True, eq=False)
class ModelSource:
    """A checkpoint that is open for reading.

    Args:
        folder: that holds it.
        model: of the checkpoint's shape, its weights not set, so that the large ones cost no memory yet.
        files: the stored tensors.
        pieces: which stored tensor is which part of the model.
        ignored: stored tensors that the model does not need.
    """

    folder: Path
    model: Transformer
    files: TensorFiles
    pieces: Sequence[Piece]
    ignored: Collection[str]


@contextmanager
def open_source(path: Path | str) -> Iterator[ModelSource]:
    """A checkpoint whose tensors can be read one by one; see `load` for what it may be.

    Raises:
        FileNotFoundError: no such folder, or no model in it.
        ValueError: damaged files, an architecture or option that is not supported.
        LookupError: a router that this installation does not have.
    """
    folder = model_folder(path)
    if (folder / CONFIG).is_file():
        model = Transformer(_own_config(folder))
        with TensorFiles(folder) as files:
            yield ModelSource(folder, model, files, whole_pieces(model), ())
        return
    try:
        source = read_json(folder / FOREIGN_CONFIG)
        family, config = family_of(source), read_config(source)
        model = Transformer(config)
    except ValueError as error:
        raise ValueError(f"{folder / FOREIGN_CONFIG}: {error}") from error
    with TensorFiles(folder) as files:
        pieces = list(pieces_of(config, family, is_fused=fused_marker(config) in files))
        yield ModelSource(folder, model, files, pieces, _ignored(files, is_tied=config.tie_embeddings))


def _ignored(files: TensorFiles, *, is_tied: bool) -> set[str]:
    """Tensors that repeat what the model has: old files store rotary frequencies, or a tied head twice."""
    ignored = {name for name in files.names() if name.endswith(".rotary_emb.inv_freq")}
    if is_tied and _HEAD in files and _EMBEDDING in files:
        if not torch.equal(files.read(_HEAD), files.read(_EMBEDDING)):
            raise ValueError(
                f"{files.folder}: tie_word_embeddings is true, and {_HEAD} differs from {_EMBEDDING}; "
                "set it to false in config.json if the head is its own"
            )
        ignored.add(_HEAD)
    return ignored


def save_model(model: Transformer, folder: Path | str) -> None:
    """Write `model.json` and `model.safetensors` into a folder, which is made if it is not there.

    Both are written beside and renamed at the end: until then a model that was there before is whole.

    Raises:
        OSError: the disk is full or not writable.
    """
    folder = Path(folder)
    data = {"format": _FORMAT, "config": model.config.to_json()}
    with written_beside(folder / CONFIG) as config, written_beside(folder / SINGLE) as weights:
        write_json(config, data)
        write_tensors(weights, {name: tensor.detach() for name, tensor in state_of(model).items()})


def load_model(
    folder: Path | str, *, dtype: torch.dtype | str | None = None, device: torch.device | str = "cpu"
) -> Transformer:
    """The model in a folder of `save_model`.

    Args:
        dtype: of the parameters; None keeps the file's.

    Raises:
        FileNotFoundError: no `model.json` or no weights.
        ValueError: damaged files, or tensors that do not fit the configuration.
        LookupError: a router that this installation does not have.
    """
    folder = Path(folder)
    if not (folder / CONFIG).is_file():
        raise FileNotFoundError(f"{folder} holds no {CONFIG}; give a folder that save_model wrote")
    with open_source(folder) as source:
        return fill(source.model, source.files, source.pieces, dtype=dtype, device=device)


def _own_config(folder: Path) -> ModelConfig:
    data = read_json(folder / CONFIG)
    if data.get("format") != _FORMAT or not isinstance(data.get("config"), dict):
        raise ValueError(
            f"{folder / CONFIG} must have format {_FORMAT!r} and a config, got format {data.get('format')!r}; "
            "open it with the version that wrote it"
        )
    return ModelConfig.from_json(data["config"])


def export_hugging_face(
    model: Transformer,
    folder: Path | str,
    *,
    tokenizer: Path | str | None = None,
    max_shard_bytes: int = 5_000_000_000,
) -> None:
    """Write a folder that transformers opens, with the same logits, as the family that fits the model.

    The folder appears when all of it is written, and not at all if that fails.

    Args:
        folder: a new or empty one.
        tokenizer: a folder whose tokenizer files, and begin, end and padding ids, go along.
        max_shard_bytes: weights beyond this are split over several files [B].

    Raises:
        ValueError: no family can express the model; the message says why not.
        FileExistsError: the folder holds something.
        OSError: the disk is full or not writable.
    """
    folder = Path(folder)
    source = None if tokenizer is None else Path(tokenizer)
    at_least("max_shard_bytes", max_shard_bytes, 1)
    family, data = write_config(model.config)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"{folder} exists and is not empty; export into a new folder")
    dtype = str(model.embedding.weight.dtype).removeprefix("torch.")
    # transformers 4 reads the second spelling.
    data |= {**special_ids(source), "dtype": dtype, "torch_dtype": dtype}
    state = state_of(model)
    pieces = list(pieces_of(model.config, family, is_fused=False))
    assert {piece.target for piece in pieces} == set(state), "a tensor of the model has no Hugging Face name"
    with written_beside(folder) as part:
        part.mkdir()
        write_json(part / FOREIGN_CONFIG, data)
        write_shards(part, {piece.name: view_of(state, piece) for piece in pieces}, max_shard_bytes)
        if source is not None:
            copy_tokenizer(source, part)

"""Safetensors files: many tensors under one name each, read one at a time, written whole or not at all."""

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

__all__ = ["SINGLE", "TensorFiles", "read_json", "write_json", "write_shards", "write_tensors", "written_beside"]

SINGLE, _INDEX = "model.safetensors", "model.safetensors.index.json"

_DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


class TensorFiles:
    """The named tensors of a folder, in one file or in shards; the files are mapped, not read.

    Args:
        folder: holds `model.safetensors`, or shards and their index.

    Raises:
        FileNotFoundError: no weights, or a shard is missing.
        ValueError: a file is damaged, or the folder holds pickled weights only.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self._handles: dict[str, Any] = {}
        with ExitStack() as stack:
            for file in _files_of(folder):
                handle = stack.enter_context(_opened(file))
                self._handles.update(dict.fromkeys(handle.keys(), handle))
            _check_index(folder, self._handles)
            self._stack = stack.pop_all()

    def __enter__(self) -> "TensorFiles":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def __contains__(self, name: object) -> bool:
        return name in self._handles

    def names(self) -> frozenset[str]:
        """The name of every tensor."""
        return frozenset(self._handles)

    def shape(self, name: str) -> torch.Size:
        """The shape of a tensor, from the header."""
        return torch.Size(self._handles[name].get_slice(name).get_shape())

    def dtype(self, name: str) -> torch.dtype:
        """The dtype of a tensor, from the header.

        Raises:
            ValueError: integers or a quantised format.
        """
        stored = self._handles[name].get_slice(name).get_dtype()
        if stored not in _DTYPES:
            raise ValueError(
                f"{name} in {self.folder} is stored as {stored}; quantised weights are not read, "
                f"give a checkpoint in one of {', '.join(_DTYPES)}"
            )
        return _DTYPES[stored]

    def read(self, name: str) -> Tensor:
        """One tensor; its memory is the mapped file where the platform allows it."""
        tensor: Tensor = self._handles[name].get_tensor(name)
        return tensor


def _files_of(folder: Path) -> list[Path]:
    if (folder / _INDEX).is_file():
        shards = sorted(set(_weight_map(folder).values()))
        absent = [shard for shard in shards if not (folder / shard).is_file()]
        if absent:
            raise FileNotFoundError(
                f"{folder} lacks {len(absent)} of the {len(shards)} shards that {_INDEX} names, "
                f"first {absent[0]}; copy it again from its source"
            )
        return [folder / shard for shard in shards]
    if (folder / SINGLE).is_file():
        return [folder / SINGLE]
    pickled = sorted(p.name for p in folder.glob("*.bin")) + sorted(p.name for p in folder.glob("*.pt"))
    if pickled:
        raise ValueError(
            f"{folder} holds {pickled[0]} but no {SINGLE}; pickled weights can run code and are not read, "
            "open them with transformers once and save_pretrained() them again"
        )
    raise FileNotFoundError(f"{folder} holds neither {SINGLE} nor {_INDEX}; copy the weights there")


def _weight_map(folder: Path) -> Mapping[str, str]:
    names = read_json(folder / _INDEX).get("weight_map")
    if not isinstance(names, dict) or not all(
        isinstance(shard, str) and Path(shard).name == shard for shard in names.values()
    ):
        raise ValueError(
            f"{folder / _INDEX} needs a 'weight_map' from tensor names to files of the same folder; "
            "copy it again from its source"
        )
    return names


def _check_index(folder: Path, found: Mapping[str, object]) -> None:
    if not (folder / _INDEX).is_file():
        return
    for name, shard in _weight_map(folder).items():
        if name not in found:
            raise ValueError(
                f"{folder / shard} has no {name}, which {_INDEX} says it has; copy it again from its source"
            )


def _opened(file: Path) -> Any:
    try:
        return safe_open(str(file), framework="pt", device="cpu")
    except SafetensorError as error:
        raise ValueError(
            f"{file} is damaged or truncated ({error}; {file.stat().st_size} bytes); copy it again from its source, "
            "or take an older checkpoint"
        ) from error


def read_json(file: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        ValueError: it is not JSON, or not an object.
    """
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:  # JSONDecodeError and UnicodeDecodeError are both ValueErrors
        raise ValueError(f"{file} is damaged ({error}); copy it again from its source") from error
    if not isinstance(data, dict):
        raise ValueError(f"{file} must hold a JSON object, got {type(data).__name__}; copy it again from its source")
    return data


def write_json(file: Path, data: Mapping[str, Any]) -> None:
    """Write an object as indented JSON."""
    file.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")


def write_tensors(file: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write one safetensors file.

    Raises:
        OSError: the disk is full or not writable.
    """
    try:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, str(file), {"format": "pt"})
    except SafetensorError as error:
        raise OSError(str(error)) from error


def write_shards(folder: Path, tensors: Mapping[str, Tensor], max_bytes: int) -> None:
    """Write one file, or several of at most so many bytes and their index; a larger tensor is a file of its own.

    Raises:
        OSError: the disk is full or not writable.
    """
    shards: list[dict[str, Tensor]] = [{}]
    room = max_bytes
    for name, tensor in tensors.items():
        if tensor.nbytes > room and shards[-1]:
            shards.append({})
            room = max_bytes
        shards[-1][name] = tensor
        room -= tensor.nbytes
    if len(shards) == 1:
        write_tensors(folder / SINGLE, shards[0])
        return
    files = [f"model-{number:05d}-of-{len(shards):05d}.safetensors" for number in range(1, len(shards) + 1)]
    for file, shard in zip(files, shards, strict=True):
        write_tensors(folder / file, shard)
    weight_map = {name: file for file, shard in zip(files, shards, strict=True) for name in shard}
    total = sum(tensor.nbytes for tensor in tensors.values())
    write_json(folder / _INDEX, {"metadata": {"total_size": total}, "weight_map": weight_map})


@contextmanager
def written_beside(final: Path) -> Iterator[Path]:
    """A path for a new file or folder, which takes the final name when the block ends well.

    Otherwise it is removed, and what had the final name stays as it was.

    Raises:
        OSError: the disk is full or not writable; the message says that nothing was lost.
    """
    part = final.with_name(f".{final.name}.part-{os.getpid()}")
    existed = final.exists()
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        yield part
        _sync(part)
        part.replace(final)
    except OSError as error:
        intact = f"the earlier {final.name} is intact" if existed else "nothing was left behind"
        raise OSError(
            f"could not write {final} ({error}); {intact}; free some space or choose another folder"
        ) from error
    finally:
        # gone already when all went well
        if part.is_dir():
            shutil.rmtree(part, ignore_errors=True)
        else:
            part.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    # without it a power cut after the rename could leave the final name on an empty file.
    for file in (*path.iterdir(), path) if path.is_dir() else (path,):
        handle = os.open(file, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

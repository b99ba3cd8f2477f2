"""Experts on disk: aligned, contiguous, checksummed blocks, one for each page, read past the page cache."""

import mmap
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, final

import numpy as np
from psutil import pid_exists  # type: ignore[import-untyped]
from torch import Tensor
from xxhash import xxh3_64, xxh3_64_hexdigest

from workbench.core.html import facts
from workbench.core.records import ExpertKey
from workbench.core.spec import Spec
from workbench.core.units import human_bytes
from workbench.model.tensor_files import read_json, write_json, written_beside
from workbench.offload.calibration import Calibration
from workbench.offload.expert_format import ExpertFormat
from workbench.offload.formats import FORMATS
from workbench.offload.store.blocks import BlockShape, parts_of
from workbench.offload.store.encoding import EXACT, Encoding

__all__ = ["DamagedExpert", "ExpertStore", "write_store"]

_FORMAT = "moe-workbench.experts/1"
_MANIFEST, _DATA = "experts.json", "experts.bin"


class DamagedExpert(ValueError):
    """What was read of an expert is not what was written."""


def write_store(
    folder: Path,
    experts: Iterator[tuple[ExpertKey, Sequence[Tensor]]],
    shape: BlockShape,
    *,
    num_layers: int,
    num_experts: int,
    source: str,
    format: Spec = EXACT,
    calibration: Calibration | None = None,
    about: Mapping[str, Any] | None = None,
    on_expert: Callable[[int], None] = lambda done: None,
) -> None:
    """Write a store; it is there whole, or not at all.

    Args:
        folder: takes the place of a store that is there.
        experts: in the order of layers, then of experts; one is held at a time.
        shape: of every expert, as it computes.
        source: identifies the weights: a store of other weights is not opened for these.
        format: how experts are written; see `FORMATS`.
        calibration: inputs of the experts, for a format that takes them.
        about: what else to remember, plain values.
        on_expert: called with the number of experts written.

    Raises:
        FileExistsError: the folder holds what is no part of a store.
        LookupError: unknown format.
        OSError: the disk is full or not writable; nothing is left behind.
        ValueError: experts that are missing, out of order, of different shapes, or that the format cannot hold.
    """
    encoder: ExpertFormat = format.build(FORMATS)
    _make_way(folder)
    with written_beside(folder) as part:
        part.mkdir()
        sums, left, of_page = [], [], shape
        with (part / _DATA).open("wb") as file:
            for number, (key, tensors) in enumerate(experts):
                if key != divmod(number, num_experts):
                    raise ValueError(
                        f"experts must come in the order of layers and experts, got {key} at place {number}"
                    )
                shape.check(tensors)
                scales = None if calibration is None else calibration.scales[number]
                pages, norms = ([list(tensors)], []) if encoder.is_lossless else encoder.encode(tensors, scales)
                of_page = parts_of(pages[0])
                sums += [_written(file.write, of_page, page) for page in pages]
                left.append(norms)
                on_expert(number + 1)
        if len(left) != num_layers * num_experts:
            raise ValueError(f"{num_layers} layers of {num_experts} experts were announced, {len(left)} experts came")
        encoding = Encoding(format=format, levels=encoder.levels, dense=shape, left=np.array(left))
        if calibration is not None:
            encoding = replace(encoding, calibration=calibration.name, tokens=calibration.tokens)
        manifest = {"format": _FORMAT, "source": source, "num_layers": num_layers, "num_experts": num_experts}
        manifest |= {"parts": of_page.to_json(), "encoding": None if encoder.is_lossless else encoding.to_json()}
        manifest |= {"about": dict(about or {}), "checksums": sums}
        write_json(part / _MANIFEST, manifest)
        if folder.is_dir():
            _remove(folder)


@final
class ExpertStore:
    """The experts of a model as blocks of a file; read by any number of threads.

    Reads go to the disk itself (O_DIRECT) where the file system has it. Elsewhere what was read is dropped
    from the page cache at once, and `way` says so.

    Args:
        folder: that `write_store` wrote.
        source: the weights that are expected; None takes any.

    Attributes:
        shape: of a page.
        encoding: how an expert is put together from its pages.
        way: how it is read, in words.

    Raises:
        FileNotFoundError: no store.
        ValueError: damaged, of other weights, or written by another version.
    """

    def __init__(self, folder: Path | str, *, source: str | None = None):
        self.folder = Path(folder)
        manifest = _manifest(self.folder)
        if source is not None and manifest["source"] != source:
            raise ValueError(
                f"{self.folder} holds the experts of {manifest['source']}, expected those of {source}; "
                "remove the folder, and it is converted anew"
            )
        try:
            self.source = str(manifest["source"])
            self.num_layers, self.num_experts = int(manifest["num_layers"]), int(manifest["num_experts"])
            self.shape = BlockShape.from_json(manifest["parts"])
            self.encoding = Encoding.from_json(manifest.get("encoding"), self.shape, self.num_layers * self.num_experts)
            self.about: Mapping[str, Any] = dict(manifest["about"])
            self._sums = [int(text, 16) for text in manifest["checksums"]]
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{self.folder / _MANIFEST} is damaged ({type(error).__name__}: {error}); "
                "remove the folder, and it is converted anew"
            ) from error
        expected = self.shape.stride * self.num_pages
        file = self.folder / _DATA
        size = file.stat().st_size if file.is_file() else 0
        if size != expected or len(self._sums) != self.num_pages:
            raise ValueError(
                f"{file} must have {expected} bytes for {self.num_layers * self.num_experts} experts, got {size}; "
                "it was cut short or changed: remove the folder, and it is converted anew"
            )
        self._file, self.is_direct = _opened(file)
        # macOS has no such call.
        self._forget: Callable[[int, int, int, int], None] | None = vars(os).get("posix_fadvise")
        if self.is_direct:
            self.way = "from the disk itself (O_DIRECT)"
        elif self._forget is not None:
            self.way = "through the page cache, which is told to forget each block (no O_DIRECT here)"
        else:
            self.way = "through the page cache (no O_DIRECT here): what was read before may come from memory"

    @classmethod
    def is_of(cls, folder: Path, source: str) -> bool:
        """Whether a whole store of these weights is there."""
        try:
            store = cls(folder)
        except (FileNotFoundError, ValueError):
            return False
        store.close()
        return store.source == source

    @property
    def pages_per_layer(self) -> int:
        """Pages of a layer: an expert has as many as its format has levels."""
        return self.num_experts * self.encoding.levels

    @property
    def num_pages(self) -> int:
        """Pages of the model."""
        return self.num_layers * self.pages_per_layer

    @property
    def num_bytes(self) -> int:
        """All pages [B]."""
        return self.shape.num_bytes * self.num_pages

    @property
    def dense_bytes(self) -> int:
        """Weights of all experts, as they compute [B]."""
        return self.encoding.dense.num_bytes * self.num_layers * self.num_experts

    def buffer(self) -> memoryview:
        """Memory that a block can be read into: aligned, one stride long."""
        return memoryview(mmap.mmap(-1, self.shape.stride))

    def read(self, page: int, into: Sequence[memoryview], start: int = 0) -> None:
        """Read a block, or a piece of it, into aligned memory.

        Args:
            into: pieces of memory that follow each other in the block.
            start: byte of the block at which to begin, a multiple of the alignment.

        Raises:
            OSError: the disk failed, or gave less than was asked for.
        """
        offset = page * self.shape.stride + start
        wanted = sum(len(piece) for piece in into)
        got = os.preadv(self._file, into, offset)
        if not self.is_direct and self._forget is not None:
            self._forget(self._file, offset, wanted, os.POSIX_FADV_DONTNEED)
        if got != wanted:
            raise OSError(f"{self.folder / _DATA} gave {got} of {wanted} bytes at {offset}; it was cut short")

    def check(self, page: int, pieces: Sequence[memoryview]) -> None:
        """Nothing, if these bytes are the expert's.

        Raises:
            DamagedExpert: they are not.
        """
        digest = xxh3_64()
        left = self.shape.num_bytes
        for piece in pieces:
            digest.update(piece[:left])
            left -= min(left, len(piece))
        if digest.intdigest() != self._sums[page]:
            layer, expert = divmod(page // self.encoding.levels, self.num_experts)
            raise DamagedExpert(
                f"expert {expert} of layer {layer} in {self.folder / _DATA} is damaged (its checksum differs); "
                "remove the folder, and it is converted anew from the checkpoint"
            )

    def close(self) -> None:
        """Close the file."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def __repr__(self) -> str:
        experts = self.num_layers * self.num_experts
        return f"ExpertStore({self.folder}, {experts} experts of {human_bytes(self.num_bytes // experts)})"

    def _repr_html_(self) -> str:
        levels = self.encoding.levels
        rows = {
            "experts": f"{self.num_layers} layers x {self.num_experts}",
            "an expert": " x ".join([*([str(levels)] if levels > 1 else []), human_bytes(self.shape.num_bytes)]),
            "format": self.encoding.name,
            "all experts": human_bytes(self.num_bytes),
            "read": self.way,
        }
        return facts("ExpertStore", rows, note=str(self.folder))


def _written(write: Callable[[bytearray], object], shape: BlockShape, page: Sequence[Tensor]) -> str:
    """Write a block; its checksum."""
    block = shape.bytes_of(page)
    write(block)
    return xxh3_64_hexdigest(memoryview(block)[: shape.num_bytes])


def _manifest(folder: Path) -> dict[str, Any]:
    if not (folder / _MANIFEST).is_file():
        raise FileNotFoundError(f"{folder} holds no {_MANIFEST}; convert a checkpoint first")
    manifest = read_json(folder / _MANIFEST)
    if manifest.get("format") != _FORMAT:
        raise ValueError(
            f"{folder / _MANIFEST} must have format {_FORMAT!r}, got {manifest.get('format')!r}; "
            "remove the folder, and it is converted anew"
        )
    wanted = {"source", "num_layers", "num_experts", "parts", "about", "checksums"}
    if not wanted <= manifest.keys():
        raise ValueError(
            f"{folder / _MANIFEST} lacks {', '.join(sorted(wanted - manifest.keys()))}; "
            "remove the folder, and it is converted anew"
        )
    return manifest


def _opened(file: Path) -> tuple[int, bool]:
    # not every system has it, and not every file system that has it takes it.
    direct = vars(os).get("O_DIRECT", 0)
    if direct:
        try:
            return os.open(file, os.O_RDONLY | direct), True
        except OSError:
            pass
    return os.open(file, os.O_RDONLY), False


def _make_way(folder: Path) -> None:
    """Refuse a folder that is somebody else's, and clear away what a killed conversion left."""
    others = [path.name for path in folder.iterdir() if path.name not in (_MANIFEST, _DATA)] if folder.is_dir() else []
    if others:
        raise FileExistsError(f"{folder} holds {others[0]}, which is no part of a store; choose another folder")
    for part in folder.parent.glob(f".{folder.name}.part-*"):
        number = part.name.rpartition("-")[2]
        if number.isdigit() and (int(number) == os.getpid() or not pid_exists(int(number))):
            shutil.rmtree(part, ignore_errors=True)


def _remove(folder: Path) -> None:
    for name in (_MANIFEST, _DATA):
        (folder / name).unlink(missing_ok=True)
    folder.rmdir()

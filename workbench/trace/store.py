"""Traces on disk while they are being written.

A store is a folder in the zarr v3 format, one array per variable. Blocks of 64 steps go first into a journal, one
file each, and are folded into the arrays every 32 blocks and on close: a file is what costs on a busy or networked
disk, and a block would touch fifty. The root metadata is the record of what the arrays hold for certain, so a run
killed at any moment leaves a trace that opens up to its last complete block.
"""

import errno
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, final

import numpy as np
import numpy.typing as npt
import zarr

from workbench.trace.arrays import append_columns, trim_group
from workbench.trace.blocks import Block, join, rows_of
from workbench.trace.checks import require_schema
from workbench.trace.journal import Journal
from workbench.trace.lock import WriterLock
from workbench.trace.manifest import commit, committed_attrs, committed_sizes
from workbench.trace.schema import GROUPS, SCHEMA

__all__ = ["FOLDED", "TraceWriter", "disk_errors", "write_groups"]

FOLDED = "folded_blocks"
"""Attribute of an open store: blocks of the journal that the arrays hold."""

_FOLD_BLOCKS = 32
_LOCK = "writer.lock"


@final
class TraceWriter:
    """Appends blocks to a trace on disk; the only writer of its folder.

    Args:
        path: folder of the trace, by custom `*.zarr`; created if missing.
        resume_after: go on with the trace that is there, and drop what it holds of later steps.

    Raises:
        FileExistsError: there is a trace already, and `resume_after` was not given.
        BlockingIOError: another writer is alive.
        ValueError: the folder holds something else, or a damaged trace.
    """

    def __init__(self, path: str | os.PathLike[str], *, resume_after: int | None = None):
        self.path = Path(path)
        if self.path.exists() and not self.path.is_dir():
            raise FileExistsError(f"{self.path} is a file; give a folder for the trace")
        with disk_errors(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
        self._journal = Journal(self.path)
        self._attrs: dict[str, Any] = {}
        self._resumed = resume_after
        self._is_torn = True
        self._lock = WriterLock(self.path / _LOCK)
        self._is_open = True
        try:
            self._begin(resume_after is not None)
            self._root = zarr.open_group(self.path, mode="r+", use_consolidated=False)
            self._next = self._journal.next_number(self._attrs[FOLDED])
            if resume_after is not None:
                self.rewind(resume_after)
        except BaseException:
            self._lock.release()
            raise

    @property
    def num_generations(self) -> int:
        """Generations that the trace already holds."""
        if "routing/sequence" not in self._root:
            return 0
        node = self._root["routing"]
        assert isinstance(node, zarr.Group)
        phase, sequence = _values(node, "phase"), _values(node, "sequence")
        return int(sequence[(phase == "prefill") | (phase == "decode")].max(initial=-1)) + 1

    def describe(self, attrs: Mapping[str, Mapping[str, Any]]) -> None:
        """Set attributes of the trace (under the empty name) and of its groups; those it has stay.

        A sampling that differs is added to the one before, since each is true of its part.
        """
        sizes = committed_sizes(self.path)
        with disk_errors(self.path):
            for name in attrs.keys() - {""}:
                node = _group(self._root, name)
                node.attrs.update(_merged(dict(node.attrs), attrs[name], self._resumed))
                sizes.setdefault(name, {})
            self._attrs = {**attrs.get("", {}), **self._attrs}
            commit(self.path, self._attrs, sizes)

    def append(self, block: Block) -> None:
        """Write one block; it is complete when this returns.

        Raises:
            OSError: the disk is full; the trace keeps every earlier block.
        """
        if not self._is_open:
            raise ValueError(f"the writer of {self.path} is closed; open a new one with resume_after=")
        with disk_errors(self.path):
            self._journal.append(self._next, block)
        self._next += 1
        if self._next - self._attrs[FOLDED] >= _FOLD_BLOCKS:
            self.fold()

    def fold(self) -> None:
        """Move the journal into the arrays."""
        blocks = self._journal.read(self._attrs[FOLDED])
        if not blocks:
            return
        with disk_errors(self.path):
            self._mend()
            self._is_torn = True
            write_groups(self._root, join(blocks), {})
            commit(self.path, self._attrs | {FOLDED: self._next})
            self._is_torn = False
            self._attrs[FOLDED] = self._next
            self._journal.drop(below=self._next)

    def rewind(self, step: int) -> None:
        """Drop the first row that belongs to a later step, and what was written after it."""
        self.fold()
        sizes = committed_sizes(self.path)
        for name, group in GROUPS.items():
            if group.append and group.clock and f"{name}/{group.clock}" in self._root:
                node = _group(self._root, name)
                sizes[name][group.append] = rows_of(group, {group.clock: _values(node, group.clock)}, step)
        with disk_errors(self.path):
            # the record goes first: killed in between, the arrays are too long, which the next writer repairs.
            commit(self.path, self._attrs, sizes)
            self._is_torn = True
            self._mend()

    def close(self) -> None:
        """Fold what is left and let the next writer in. A second call does nothing."""
        if not self._is_open:
            return
        try:
            self.fold()
            with disk_errors(self.path):
                self._mend()
                for name in [name for name, sizes in committed_sizes(self.path).items() if not sizes]:
                    shutil.rmtree(self.path / name)
                commit(self.path, {key: value for key, value in self._attrs.items() if key != FOLDED})
                self._journal.remove()
        finally:
            self._is_open = False
            self._lock.release()

    def __enter__(self) -> "TraceWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = f"{self._next} blocks" if self._is_open else "closed"
        return f"TraceWriter({str(self.path)!r}, {state})"

    def _begin(self, is_resumed: bool) -> None:
        names = {path.name for path in self.path.iterdir() if not path.name.startswith(".")} - {_LOCK}
        if "zarr.json" in names and not is_resumed:
            raise FileExistsError(
                f"{self.path} holds a trace already; go on with it by resume_after=STEP, or give another folder"
            )
        with disk_errors(self.path):
            if "zarr.json" not in names:
                if names:
                    raise ValueError(f"{self.path} holds {min(names)!r} and no trace; give a new or an empty folder")
                commit(self.path, {"schema": SCHEMA, FOLDED: 0})
            self._attrs = committed_attrs(self.path)
            require_schema(self._attrs, str(self.path))
            if FOLDED not in self._attrs:
                # closed, but killed before the journal was gone: the arrays hold all of it.
                self._journal.remove()
                self._attrs[FOLDED] = 0
                commit(self.path, self._attrs)
        self._journal.drop(below=self._attrs[FOLDED])

    def _mend(self) -> None:
        # what a killed or failed write left in the arrays must not come to light when they grow.
        if not self._is_torn:
            return
        sizes = committed_sizes(self.path)
        for name in GROUPS:
            if name in self._root and name not in sizes:
                shutil.rmtree(self.path / name)
            elif name in self._root:
                trim_group(_group(self._root, name), name, sizes[name])
        self._is_torn = False


def write_groups(root: zarr.Group, block: Block, attrs: Mapping[str, Mapping[str, Any]]) -> None:
    """Append a block to the groups of a store; attributes go to groups that it creates."""
    for name, columns in block.items():
        append_columns(_group(root, name, attrs.get(name, {})), name, columns)


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Says in plain words that the disk is full.

    Raises:
        OSError: as it came, with what to do.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise OSError(
            error.errno, f"the disk of {path} is full; what was written before is intact, free some space and resume"
        ) from error


def _group(root: zarr.Group, name: str, attrs: Mapping[str, Any] | None = None) -> zarr.Group:
    if name not in root:
        coordinates = [key for key, variable in GROUPS[name].variables.items() if variable.is_coordinate]
        return root.create_group(name, attributes={**(attrs or {}), "coordinates": " ".join(coordinates)})
    node = root[name]
    assert isinstance(node, zarr.Group)
    return node


def _values(node: zarr.Group, name: str) -> npt.NDArray[Any]:
    array = node[name]
    assert isinstance(array, zarr.Array)
    return np.asarray(array[...])


def _merged(old: Mapping[str, Any], new: Mapping[str, Any], step: int | None) -> dict[str, Any]:
    merged = {**new, **old}
    if "sampling" in old and "sampling" in new and not old["sampling"].endswith(new["sampling"]):
        merged["sampling"] = f"{old['sampling']}; after step {step}: {new['sampling']}"
    return merged

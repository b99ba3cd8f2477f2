"""Blocks that are complete but not yet in the arrays: one file each."""

import io
import zipfile
from pathlib import Path

import numpy as np

from workbench.trace.blocks import Block
from workbench.trace.manifest import replace_file
from workbench.trace.schema import TEXT

__all__ = ["Journal"]


class Journal:
    """The blocks of one store that wait to be folded into its arrays.

    Args:
        store: folder of the store; its `journal` need not exist.
    """

    def __init__(self, store: Path):
        self._folder = store / "journal"

    def append(self, number: int, block: Block) -> None:
        """Write one block; it is there whole or not at all."""
        data = io.BytesIO()
        # a .npy file takes text of fixed width only, unless it is pickled.
        flat = {
            f"{group}/{name}": np.array(array.tolist(), dtype=np.str_) if array.dtype == TEXT else array
            for group, columns in block.items()
            for name, array in columns.items()
        }
        np.savez(data, allow_pickle=False, **flat)
        self._folder.mkdir(exist_ok=True)
        replace_file(self._folder / f"{number:08d}.npz", data.getbuffer())

    def read(self, first: int) -> list[Block]:
        """The blocks from a number on, in order.

        Raises:
            ValueError: a block is damaged or missing.
            FileNotFoundError: a block was folded meanwhile.
        """
        wanted = [(number, path) for number, path in self._files() if number >= first]
        for expected, (number, _) in enumerate(wanted, first):
            if number != expected:
                raise ValueError(f"{self._folder} lacks block {expected}; remove the later ones to open the rest")
        return [_read(path) for _, path in wanted]

    def next_number(self, first: int) -> int:
        """Number of the block after the last one."""
        return max([first, *(number + 1 for number, _ in self._files())])

    def drop(self, below: int) -> None:
        """Remove the blocks before a number."""
        for number, path in self._files():
            if number < below:
                path.unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove the whole journal."""
        self.drop(self.next_number(0))
        if self._folder.exists():
            for left in self._folder.iterdir():
                left.unlink()
            self._folder.rmdir()

    def _files(self) -> list[tuple[int, Path]]:
        return sorted((int(path.stem), path) for path in self._folder.glob("[0-9]*.npz"))


def _read(path: Path) -> Block:
    block: Block = {}
    try:
        # read whole: given a path, numpy leaves the file of a damaged archive open.
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as arrays:
            for key in arrays.files:
                group, _, name = key.partition("/")
                array = arrays[key]
                block.setdefault(group, {})[name] = array.astype(TEXT) if array.dtype.kind == "U" else array
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is damaged ({error}); remove it and the later ones to open the rest") from error
    return block

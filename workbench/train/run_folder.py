"""A run on disk: what it was started with, its checkpoints, its trace, its texts, its report."""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import psutil

from workbench.model.tensor_files import read_json, write_json, written_beside
from workbench.trace.lock import WriterLock
from workbench.train.checkpoint import checkpoints

__all__ = ["RunFolder"]

_FORMAT = "moe-workbench.run/1"
_NEEDED = ("corpus", "corpus_fingerprint", "train")


@final
@dataclass(frozen=True)
class RunFolder:
    """The files of a run.

    Args:
        path: `run.json`, `checkpoints/`, `tokenizer/`, `trace.zarr/`, `samples.json` and `report.html` lie below it.
    """

    path: Path

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints."""
        return self.path / "checkpoints"

    @property
    def tokenizer(self) -> Path:
        """Folder of the tokenizer, so that the run needs nothing outside it."""
        return self.path / "tokenizer"

    @property
    def trace(self) -> Path:
        """The trace store."""
        return self.path / "trace.zarr"

    @property
    def report(self) -> Path:
        """The page that shows the run."""
        return self.path / "report.html"

    def check_free(self) -> None:
        """Nothing, if a run can begin here.

        Raises:
            FileExistsError: there is a run or something else already; it is left alone.
        """
        if self._facts_file.exists():
            raise FileExistsError(
                f"{self.path} already holds a run; resume it with `workbench train --resume {self.path}`, "
                "or choose another folder"
            )
        if self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
            raise FileExistsError(f"{self.path} exists and is not an empty folder; choose a new folder for the run")

    @contextmanager
    def begun(self, facts: Mapping[str, Any]) -> Iterator["RunFolder"]:
        """A run to fill, which takes its place when the block has ended well; until then there is none.

        Raises:
            FileExistsError: there is a run or something else already; it is left alone.
            OSError: the folder cannot be written; nothing is left behind.
        """
        self.check_free()
        self._clear_leftovers()
        with written_beside(self.path) as part:
            part.mkdir()
            write_json(part / self._facts_file.name, {"format": _FORMAT, **facts})
            yield RunFolder(part)

    def _clear_leftovers(self) -> None:
        # of processes that were killed while they began this very run.
        for part in self.path.parent.glob(f".{self.path.name}.part-*"):
            process = part.name.rpartition("-")[2]
            if process.isdecimal() and not psutil.pid_exists(int(process)):
                shutil.rmtree(part, ignore_errors=True)

    def facts(self) -> dict[str, Any]:
        """What the run was started with.

        Raises:
            FileNotFoundError: no run here.
            ValueError: its `run.json` is damaged or of another version.
        """
        file = self._facts_file
        if not file.is_file():
            raise FileNotFoundError(f"{self.path} holds no run (no {file.name}); give the folder that --out named")
        data = read_json(file)
        if data.pop("format", None) != _FORMAT:
            raise ValueError(f"{file} must have format {_FORMAT!r}; it was written by another version")
        missing = [name for name in _NEEDED if name not in data]
        if missing:
            raise ValueError(f"{file} is damaged: it lacks {', '.join(missing)}; start the run anew in another folder")
        return data

    def lock(self) -> WriterLock:
        """The right to write here, held by one process at a time.

        Raises:
            BlockingIOError: another process has it; the message names that process.
        """
        return WriterLock(self.path / "run.lock")

    def newest(self) -> Path:
        """The newest checkpoint.

        Raises:
            FileNotFoundError: there is none, though every run begins with one.
        """
        found = checkpoints(self.checkpoints)
        if not found:
            raise FileNotFoundError(f"{self.checkpoints} holds no checkpoint any more; start the run anew elsewhere")
        return found[-1]

    def older(self, checkpoint: Path) -> Path | None:
        """The checkpoint before another, None for the oldest."""
        found = checkpoints(self.checkpoints)
        place = found.index(checkpoint)
        return found[place - 1] if place else None

    def samples(self) -> list[dict[str, Any]]:
        """Texts that the run's model wrote.

        Raises:
            ValueError: the file is damaged.
        """
        if not self._samples_file.is_file():
            return []
        samples = read_json(self._samples_file).get("samples")
        if not isinstance(samples, list) or not all(isinstance(sample, dict) for sample in samples):
            raise ValueError(f"{self._samples_file} is damaged; remove it, only the texts of the report are in it")
        return samples

    def add_sample(self, sample: Mapping[str, Any]) -> None:
        """Keep a text that the run's model wrote."""
        samples = [*self.samples(), dict(sample)]
        with written_beside(self._samples_file) as part:
            write_json(part, {"samples": samples})

    @property
    def _facts_file(self) -> Path:
        return self.path / "run.json"

    @property
    def _samples_file(self) -> Path:
        return self.path / "samples.json"

"""A run on disk: what it was started with, its checkpoints, its trace, its report."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from workbench.train.checkpoint import checkpoints, write_json

__all__ = ["RunFolder"]

_FORMAT = "moe-workbench.run/1"


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

    def start(self, facts: Mapping[str, Any]) -> None:
        """Begin a run here.

        Raises:
            FileExistsError: there is one already; it is left alone.
            OSError: the folder cannot be written.
        """
        if (self.path / "run.json").exists():
            raise FileExistsError(
                f"{self.path} already holds a run; resume it with `workbench train --resume {self.path}`, "
                "or choose another folder"
            )
        self.path.mkdir(parents=True, exist_ok=True)
        write_json(self.path / "run.json", {"format": _FORMAT, **facts})

    def facts(self) -> dict[str, Any]:
        """What the run was started with.

        Raises:
            FileNotFoundError: no run here.
            ValueError: its `run.json` is damaged or of another version.
        """
        file = self.path / "run.json"
        if not file.is_file():
            raise FileNotFoundError(f"{self.path} holds no run (no run.json); give the folder that --out named")
        try:
            data: dict[str, Any] = json.loads(file.read_text())
        except json.JSONDecodeError as error:
            raise ValueError(f"{file} is damaged ({error}); start the run anew in another folder") from error
        if data.pop("format", None) != _FORMAT:
            raise ValueError(f"{file} must have format {_FORMAT!r}; it was written by another version")
        return data

    def newest(self) -> Path | None:
        """The newest checkpoint, None before the first."""
        found = checkpoints(self.checkpoints)
        return found[-1] if found else None

    def samples(self) -> list[dict[str, Any]]:
        """Texts that the run's model wrote."""
        file = self.path / "samples.json"
        found: list[dict[str, Any]] = json.loads(file.read_text()) if file.is_file() else []
        return found

    def add_sample(self, sample: Mapping[str, Any]) -> None:
        """Keep a text that the run's model wrote."""
        write_json(self.path / "samples.json", [*self.samples(), dict(sample)])

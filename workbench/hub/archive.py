"""The trace of a run as one file to take home."""

import tempfile
import zipfile
from pathlib import Path
from typing import IO, Any

from workbench.hub.schema import CommandError

__all__ = ["LARGEST_TRACE_BYTES", "zipped_trace"]

LARGEST_TRACE_BYTES = 2 * 2**30


def zipped_trace(folder: object) -> IO[bytes]:
    """A temporary file, at its start, with the trace of a run folder; it is gone once closed.

    The trace may still be written: what is complete on disk is taken. Links are left out.

    Args:
        folder: as the state of the run has it.

    Raises:
        CommandError: 404 nothing is on disk; 413 larger than this server sends.
    """
    if not isinstance(folder, str) or not folder:
        raise CommandError(404, "this run keeps its trace in memory; give it a folder to have one on disk")
    trace = Path(folder) / "trace.zarr"
    if not trace.is_dir() or trace.is_symlink():
        raise CommandError(404, "this run has not written its trace yet; it does so every 64 steps")
    files = [path for path in sorted(trace.rglob("*")) if path.is_file() and not path.is_symlink()]
    file: IO[bytes] = tempfile.TemporaryFile()
    try:
        _fill(file, trace, files)
    except BaseException:
        file.close()
        raise
    file.seek(0)
    return file


def _fill(file: IO[Any], trace: Path, files: list[Path]) -> None:
    size = 0
    # chunks of a zarr store are compressed already.
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for path in files:
            try:
                data = path.read_bytes()
            except FileNotFoundError:
                continue  # a block that the writer replaced meanwhile
            size += len(data)
            if size > LARGEST_TRACE_BYTES:
                raise CommandError(413, f"the trace is larger than {LARGEST_TRACE_BYTES:,} bytes; copy it from {trace}")
            archive.writestr(str(path.relative_to(trace)), data)

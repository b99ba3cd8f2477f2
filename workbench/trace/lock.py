"""One writer at a time. Linux and macOS; Windows through WSL."""

import fcntl
import os
import socket
from pathlib import Path

__all__ = ["WriterLock"]


class WriterLock:
    """Held by the process that writes a folder; the system lets go when that process dies.

    Args:
        path: of the lock file, removed again on release.

    Raises:
        BlockingIOError: another writer is alive; the message names its process.
    """

    def __init__(self, path: Path):
        self._path = path
        self._file = self._acquire()

    def release(self) -> None:
        """Let the next writer in. A second call does nothing."""
        if self._file < 0:
            return
        self._path.unlink(missing_ok=True)
        os.close(self._file)
        self._file = -1

    def _acquire(self) -> int:
        while True:
            file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                owner = os.read(file, 200).decode("utf-8", "replace").strip()
                os.close(file)
                if self._is_orphan(owner):
                    self._path.unlink(missing_ok=True)
                    continue
                raise BlockingIOError(
                    f"{self._path.parent} is being written by {owner or 'another process'}; "
                    "stop that run first, or write elsewhere"
                ) from error
            except BaseException:
                os.close(file)
                raise
            if self._is_current(file):
                os.ftruncate(file, 0)
                os.write(file, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
                return file
            # the writer before us removed the file between our open and our lock.
            os.close(file)

    def _is_current(self, file: int) -> bool:
        try:
            return os.path.samestat(os.fstat(file), self._path.stat())
        except FileNotFoundError:
            return False

    def _is_orphan(self, owner: str) -> bool:
        # a forked child that outlives the writer, such as a data loader, inherits the lock without being a writer.
        words = owner.split()
        if len(words) != 4 or words[3] != socket.gethostname():
            return False
        try:
            os.kill(int(words[1]), 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            return False
        return False

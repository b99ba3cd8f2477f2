"""Where runs announce themselves: one connection file each, readable by its owner only, as Jupyter's kernels do."""

import json
import os
import secrets
import stat
import sys
import tempfile
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

__all__ = [
    "Connection",
    "connection_files",
    "is_alive",
    "is_run_id",
    "new_run_id",
    "read_connection",
    "remove_connection",
    "runtime_dir",
    "socket_path",
    "write_connection",
]

_SUN_PATH_BYTES = 104  # macOS has 104, Linux 108, both with the final zero
_VERSION = 1
_LARGEST_FILE_BYTES = 16 * 1024
_TYPES: dict[str, type | tuple[type, ...]] = {"pid": int, "started_at": (int, float)}


@dataclass(frozen=True, kw_only=True)
class Connection:
    """How to reach a run.

    Attributes:
        socket: path of its Unix socket.
        secret: what its runtime wants to hear first.
        started_at: seconds since the epoch.
    """

    id: str
    socket: str
    secret: str
    pid: int
    title: str
    owner: str
    started_at: float


def runtime_dir() -> Path:
    """The folder of connection files: `workbench` in Jupyter's runtime folder. It may not exist yet."""
    given = os.environ.get("JUPYTER_RUNTIME_DIR")
    return (Path(given) if given else _data_dir() / "runtime") / "workbench"


def _data_dir() -> Path:
    """Where Jupyter keeps data of a user, by the rule of `jupyter_core.paths.jupyter_data_dir`."""
    given = os.environ.get("JUPYTER_DATA_DIR")
    if given:
        return Path(given)
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Jupyter"
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "jupyter"


def new_run_id() -> str:
    """A name for a run that nobody can guess: 128 random bits."""
    return secrets.token_hex(16)


def is_run_id(text: str) -> bool:
    """True for what `new_run_id` makes; anything else never becomes part of a path."""
    return len(text) == 32 and all(mark in "0123456789abcdef" for mark in text)


def socket_path(run_id: str, folder: Path | None = None) -> Path:
    """A path for the socket of a run: beside its connection file, or in a private temporary folder if that is too long.

    Args:
        folder: of connection files; None for the one of this user.
    """
    path = _private(folder or runtime_dir()) / f"{run_id[:12]}.sock"
    if len(os.fsencode(path)) < _SUN_PATH_BYTES:
        return path
    return Path(tempfile.mkdtemp(prefix="workbench-")) / "run.sock"


def write_connection(connection: Connection, folder: Path | None = None) -> Path:
    """Announce a run; the file appears whole, and only its owner can read it."""
    place = _private(folder or runtime_dir())
    path = place / f"{connection.id}.json"
    draft = place / f".{connection.id}.{os.getpid()}"
    text = json.dumps({"version": _VERSION, **asdict(connection)})
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600), "w") as file:
        file.write(text)
    draft.replace(path)
    return path


def read_connection(path: Path) -> Connection | None:
    """What a connection file says; None when it is gone, not ours, open to others, or no connection file."""
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW)) as file:
            facts = os.fstat(file.fileno())
            if facts.st_uid != os.getuid() or stat.S_IMODE(facts.st_mode) & 0o077:
                return None
            return _parsed(json.loads(file.read(_LARGEST_FILE_BYTES)), path.stem)
    except (OSError, ValueError, RecursionError):
        return None


def _parsed(value: Any, stem: str) -> Connection | None:
    names = [field.name for field in fields(Connection)]
    if not isinstance(value, dict) or value.get("version") != _VERSION or not set(names) <= set(value):
        return None
    known = {name: value[name] for name in names}
    is_typed = all(isinstance(part, _TYPES.get(name, str)) for name, part in known.items())
    if not is_typed or known["id"] != stem or known["pid"] <= 0 or not Path(known["socket"]).is_absolute():
        return None
    return Connection(**known)


def connection_files(folder: Path | None = None) -> list[Path]:
    """The connection files of all runs that announced themselves, dead ones included."""
    place = folder or runtime_dir()
    return sorted(path for path in place.glob("*.json") if is_run_id(path.stem)) if place.is_dir() else []


def remove_connection(connection: Connection, folder: Path | None = None) -> None:
    """Take back the announcement of a run, with its socket. Whoever sees that a run is dead may do it."""
    socket = Path(connection.socket)
    ((folder or runtime_dir()) / f"{connection.id}.json").unlink(missing_ok=True)
    socket.unlink(missing_ok=True)
    if socket.parent.name.startswith("workbench-") and socket.parent.is_dir() and not any(socket.parent.iterdir()):
        socket.parent.rmdir()


def is_alive(pid: int) -> bool:
    """True while the process exists."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _private(folder: Path) -> Path:
    """The folder, made if need be, open to its owner only.

    Raises:
        PermissionError: it belongs to somebody else.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise PermissionError(f"{folder} belongs to another user; set JUPYTER_RUNTIME_DIR to a folder of yours")
    folder.chmod(0o700)
    return folder

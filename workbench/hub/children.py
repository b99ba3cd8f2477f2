"""Runs that the server starts for its users: one process each, with caps, and a crash that is only a message."""

import asyncio
import json
import os
import resource
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, final

from workbench.hub.places import new_run_id
from workbench.hub.schema import CommandError

__all__ = ["CHILD", "Caps", "Children"]

CHILD = (sys.executable, "-m", "workbench", "child")
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
_SECRETS = ("JUPYTER_TOKEN", "JUPYTERHUB_API_TOKEN", "JPY_API_TOKEN")
_GRACE_SECONDS = 10.0
_KILL_SECONDS = 5.0
_LAST_LINES, _LINE_CHARACTERS = 12, 400
_KEPT_ENDED = 20


@final
@dataclass(frozen=True, kw_only=True)
class Caps:
    """What a run that the server starts may use.

    Args:
        threads: of its arithmetic.
        memory_bytes: of address space, or of data where a run uses the GPU, whose driver reserves far more addresses
            than memory; not enforced on macOS, which has no such limit for another process.
        seconds: from start to end; a run that is not over then is stopped.
        runs_per_user: at once, waiting ones included.
        runs_in_all: at once, on this server.
    """

    threads: int = 1
    memory_bytes: int = 8 * 2**30
    seconds: float = 3600.0
    runs_per_user: int = 1
    runs_in_all: int = 8


@dataclass
class _Child:
    """A run from the moment somebody asked for it."""

    id: str
    preset: str
    title: str
    owner: str
    options: Mapping[str, Any]
    asked_at: float
    is_waiting: bool = False
    is_stopping: str | None = None
    ending: tuple[str, str | None] | None = None
    process: asyncio.subprocess.Process | None = None
    last: deque[str] = field(default_factory=lambda: deque(maxlen=_LAST_LINES))

    @property
    def needs_gpu(self) -> bool:
        return self.options.get("device") == "gpu"


@final
class Children:
    """The processes of one server; they end with it.

    Args:
        caps: of every run.
        command: what is started; it reads one JSON object from its standard input.
        on_change: called when a run starts, waits or ends.
    """

    def __init__(self, caps: Caps, *, on_change: Callable[[str], None], command: Sequence[str] = CHILD) -> None:
        self.caps = caps
        self._command = tuple(command)
        self._on_change = on_change
        self._children: dict[str, _Child] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def start(self, *, preset: str, title: str, options: Mapping[str, Any], owner: str) -> dict[str, Any]:
        """A new run: its `id`, and its `queue_place`, 0 when it starts now.

        Raises:
            CommandError: 409, over a cap.
        """
        child = _Child(new_run_id(), preset, title, owner, dict(options), time.time())
        self._check(child)
        child.is_waiting = child.needs_gpu and any(other.needs_gpu for other in self._active())
        self._children[child.id] = child
        if not child.is_waiting:
            self._begin(child)
        self._forget_oldest()
        self._on_change(child.id)
        return {"id": child.id, "queue_place": int(child.is_waiting)}

    def states(self) -> list[dict[str, Any]]:
        """The state of each run, as far as this server knows it."""
        return [self.state(name) for name in self._children]

    def state(self, run_id: str) -> dict[str, Any]:
        """The state of a run before it speaks for itself, or after it ended without a word.

        Raises:
            KeyError: not a run of this server.
        """
        child = self._children[run_id]
        status, error = child.ending or ("starting", None)
        pid = None if child.process is None else child.process.pid
        known = {"id": child.id, "title": child.title, "owner": child.owner, "kind": "child", "pid": pid, "step": 0}
        place = {"queue_place": int(child.is_waiting), "queue": "GPU" if child.is_waiting else None}
        return {**known, **place, "status": status, "error": error, "started_at": child.asked_at, **child.options}

    def knows(self, run_id: str) -> bool:
        """True for a run of this server."""
        return run_id in self._children

    def fate(self, run_id: str) -> tuple[str, str | None] | None:
        """How a run ended, `status` and `error`; None while it lives, or when it is not of this server."""
        return self._children[run_id].ending if run_id in self._children else None

    async def close(self) -> None:
        """End every run, and wait until it has."""
        for child in self._children.values():
            if child.is_waiting and child.ending is None:
                child.ending = ("stopped", "the server was shut down")
            elif child.ending is None:
                child.is_stopping = "the server was shut down"
        for task in list(self._tasks.values()):
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    def _active(self) -> list[_Child]:
        return [child for child in self._children.values() if child.ending is None]

    def _check(self, child: _Child) -> None:
        active, caps = self._active(), self.caps
        own = [other for other in active if other.owner == child.owner]
        if len(own) >= caps.runs_per_user:
            raise CommandError(
                409, f"{child.owner or 'you'} may have {caps.runs_per_user} run(s) at once; stop {own[0].title!r} first"
            )
        if len(active) >= caps.runs_in_all:
            raise CommandError(409, f"this server trains {caps.runs_in_all} runs at once, its limit; try again later")
        if child.needs_gpu and any(other.is_waiting for other in active):
            raise CommandError(409, "the GPU is taken and somebody waits for it already; choose cpu or try again later")

    def _begin(self, child: _Child) -> None:
        child.is_waiting = False
        self._tasks[child.id] = asyncio.create_task(self._attend(child))

    async def _attend(self, child: _Child) -> None:
        """From start to end, whatever happens."""
        try:
            await self._run(child)
        except OSError as error:
            child.ending = ("crashed", f"it could not be started: {error}")
        finally:
            child.ending = child.ending or self._ending(child)
            self._tasks.pop(child.id, None)
            self._on_change(child.id)
            self._next()

    async def _run(self, child: _Child) -> None:
        child.process = process = await asyncio.create_subprocess_exec(
            *self._command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            env=self._environment(),
            start_new_session=True,
        )
        self._limit(process.pid, resource.RLIMIT_DATA if child.needs_gpu else resource.RLIMIT_AS)
        listening = asyncio.create_task(self._listen(child))
        try:
            await self._tell(child, process)
            async with asyncio.timeout(self.caps.seconds + _GRACE_SECONDS):
                await process.wait()
        except TimeoutError:
            child.is_stopping = f"its {self.caps.seconds:g} s are used up"
        finally:
            await self._kill(process)
            with suppress(TimeoutError):
                await asyncio.wait_for(listening, 1.0)

    async def _tell(self, child: _Child, process: asyncio.subprocess.Process) -> None:
        caps = {name: vars(self.caps)[name] for name in ("threads", "memory_bytes", "seconds")}
        request = {"id": child.id, "preset": child.preset, "title": child.title, "options": dict(child.options)}
        assert process.stdin is not None, "the standard input is a pipe"
        with suppress(BrokenPipeError, ConnectionResetError):
            process.stdin.write(json.dumps({**request, "owner": child.owner, "caps": caps}).encode())
            await process.stdin.drain()
        process.stdin.close()

    async def _listen(self, child: _Child) -> None:
        """Keep the last lines of what it complains about."""
        assert child.process is not None, "there is a process to listen to"
        assert child.process.stderr is not None, "its standard error is a pipe"
        line = b""
        while data := await child.process.stderr.read(2**14):
            *lines, line = (line + data).split(b"\n")
            child.last.extend(map(_printable, lines))
            line = line[-_LINE_CHARACTERS:]
        if line:
            child.last.append(_printable(line))

    def _environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if name not in _SECRETS}
        return {**kept, **dict.fromkeys(_THREADS, str(self.caps.threads))}

    def _limit(self, pid: int, kind: int) -> None:
        if sys.platform == "linux":
            with suppress(ProcessLookupError):
                resource.prlimit(pid, kind, (self.caps.memory_bytes, self.caps.memory_bytes))

    async def _kill(self, process: asyncio.subprocess.Process) -> None:
        """Ask the process to end, then end it with all that it started."""
        if process.returncode is None:
            process.terminate()
            with suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), _KILL_SECONDS)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()

    def _ending(self, child: _Child) -> tuple[str, str | None]:
        code = None if child.process is None else child.process.returncode
        if child.is_stopping is not None:
            return "stopped", child.is_stopping
        if code == 0:
            return "finished", None
        how = f"exit code {code}"
        if code is not None and code < 0:
            how = f"signal {signal.Signals(-code).name}"
        memory = f"{self.caps.memory_bytes / 2**30:.3g} GiB"
        said = "\n".join(child.last) or f"it said nothing; it may have needed more than its {memory} of memory"
        return "crashed", f"the process ended with {how}:\n{said}"

    def _next(self) -> None:
        """The GPU is free: whoever waits may start."""
        active = self._active()
        if not any(child.needs_gpu and not child.is_waiting for child in active):
            for child in [child for child in active if child.is_waiting][:1]:
                self._begin(child)
                self._on_change(child.id)

    def _forget_oldest(self) -> None:
        ended = [name for name, child in self._children.items() if child.ending is not None]
        for name in ended[: max(0, len(ended) - _KEPT_ENDED)]:
            del self._children[name]


def _printable(line: bytes) -> str:
    """A line without control characters, and not endless."""
    text = line.decode("utf-8", "replace")[:_LINE_CHARACTERS]
    return "".join(mark if mark.isprintable() else " " for mark in text).rstrip()

"""The hub's end of a run: its frames come in, commands go out, and a lost connection is taken up where it broke."""

import asyncio
import json
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any, final

from workbench.hub.commands import Command
from workbench.hub.frames import WHOLE, FrameError
from workbench.hub.places import Connection
from workbench.hub.run_store import RunStore
from workbench.hub.schema import CommandError
from workbench.hub.wire import LIMIT_TO_HUB, LIMIT_TO_RUNTIME, Inbox, WireError, pack

__all__ = ["ANSWER_SECONDS", "FINAL", "Link"]

ANSWER_SECONDS = 5.0
FINAL = ("finished", "stopped", "crashed", "lost")
"""Words of `status` after which nothing more comes."""

_HELLO_SECONDS = 5.0
_MOST_PENDING = 64
_MOST_TRIES = 8
_WAITS_SECONDS = (0.1, 0.2, 0.4, 0.8)


@final
class Link:
    """A run as the hub knows it, for as long as somebody may want to see it.

    Args:
        connection: where the run is.
        name: of this hub, as the runtime may show it.
        is_announced: tells whether the connection file is still there.
        fate: how its process ended, `status` and `error`; None while it lives.
    """

    def __init__(
        self,
        connection: Connection,
        *,
        name: str,
        is_announced: Callable[[], bool],
        fate: Callable[[], tuple[str, str | None] | None],
    ) -> None:
        self.connection = connection
        self.store = RunStore()
        self.is_over = False
        self._name = name
        self._is_announced = is_announced
        self._fate = fate
        self._writer: asyncio.StreamWriter | None = None
        self._pending: dict[str, tuple[Command, asyncio.Future[dict[str, Any]]]] = {}
        self._watching: dict[str, Any] = {"topics": [], "viewers": 0}

    @property
    def state(self) -> dict[str, Any]:
        """What the run says of itself; who it is and whose is what its connection file says."""
        began = {"title": self.connection.title, "status": "starting", "started_at": self.connection.started_at}
        own = {"id": self.connection.id, "owner": self.connection.owner, "pid": self.connection.pid}
        return {**began, **self.store.state, **own}

    @property
    def is_connected(self) -> bool:
        """True while the runtime hears commands."""
        return self._writer is not None

    async def run(self) -> None:
        """Keep the mirror up to date until the run is over, however it ends."""
        tries = 0
        while not self.is_over:
            heard = await self._try_once()
            tries = 0 if heard else tries + 1
            self._settle(tries)
            if not self.is_over:
                await asyncio.sleep(_WAITS_SECONDS[min(tries, len(_WAITS_SECONDS) - 1)])

    async def send(self, command: Command, *, is_owner: bool, is_broadcast: bool = False) -> dict[str, Any]:
        """The runtime's answer to a command: `status`, `code`, `reason`, `step`.

        Args:
            is_owner: the actor owns the run.
            is_broadcast: an instructor tells every run; the driver stays who they are.

        Raises:
            CommandError: 504 no connection or no answer in time; 429 too many wait for theirs; 409 the id is in use;
                413 the command is too long.
        """
        body = {"id": command.id, "op": command.op, "args": dict(command.args), "actor": command.actor}
        message = pack({"command": {**body, "is_owner": is_owner} | ({"is_broadcast": True} if is_broadcast else {})})
        self._check(command, message)
        if command.id not in self._pending:
            self._pending[command.id] = (command, asyncio.get_running_loop().create_future())
            self._write(message)
        try:
            return await asyncio.wait_for(asyncio.shield(self._pending[command.id][1]), ANSWER_SECONDS)
        except TimeoutError as error:
            reason = f"the run did not answer within {ANSWER_SECONDS:g} s; send the same id again, it is done only once"
            raise CommandError(504, reason) from error
        finally:
            self._pending.pop(command.id, None)

    def watch(self, topics: Iterable[str], num_viewers: int) -> None:
        """Tell the runtime what is watched, so that it builds nothing for nobody."""
        watching = {"topics": sorted(set(topics)), "viewers": num_viewers}
        if watching != self._watching:
            self._watching = watching
            self._write(pack({"watching": watching}))

    def end(self, status: str, error: str | None, *, state: Mapping[str, Any] | None = None) -> None:
        """Mark the run as over, unless it said so itself; viewers see it like any other change of state.

        Args:
            error: shown unless the run named one itself.
            state: what is known of a run that never spoke.
        """
        self.is_over = True
        self._hang_up("the run is over")
        known = self.store.state
        if known.get("status") in FINAL:
            return
        step = known.get("step")
        at = step if isinstance(step, int) else 0
        last = f"; it was last heard of at step {at}" if status == "lost" and known else ""
        why = known.get("error") or (f"{error}{last}" if error else None)
        ended = {**(state or {}), **self.state, "status": status, "error": why}
        self.store.put("state", json.dumps(ended).encode(), kind=WHOLE, step=at, time=time.time())

    def _check(self, command: Command, message: bytes) -> None:
        known = self._pending.get(command.id)
        if known is not None and known[0] != command:
            raise CommandError(409, f"id {command.id} is used by another command; make a new uuid for every command")
        if len(message) > LIMIT_TO_RUNTIME:
            raise CommandError(413, f"a command has at most {LIMIT_TO_RUNTIME:,} bytes, got {len(message):,}")
        if len(self._pending) >= _MOST_PENDING:
            raise CommandError(429, f"{_MOST_PENDING} commands wait for their answer; wait for those first")
        if self._writer is None:
            where = "is over" if self.is_over else "does not answer now; it is tried again every second"
            raise CommandError(409 if self.is_over else 504, f"the run {where}")

    def _write(self, message: bytes) -> None:
        if self._writer is not None:
            self._writer.write(message)

    async def _try_once(self) -> bool:
        """Connect and read until the connection breaks; True if the runtime said hello."""
        try:
            reader, writer = await asyncio.open_unix_connection(self.connection.socket)
        except OSError:
            return False
        heard = False
        try:
            hello = {"hello": 1, "secret": self.connection.secret, "since": self.store.seq, "hub": self._name}
            writer.write(pack(hello))
            inbox = Inbox(LIMIT_TO_HUB)
            while data := await asyncio.wait_for(reader.read(2**18), None if heard else _HELLO_SECONDS):
                for message in inbox.feed(data):
                    if heard:
                        self._take(message)
                    else:
                        self._greet(message, writer)
                        heard = True
        except (OSError, TimeoutError, WireError, FrameError):
            pass
        finally:
            self._hang_up("the run went away before it answered")
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()
        return heard

    def _greet(self, message: bytes | dict[str, Any], writer: asyncio.StreamWriter) -> None:
        if isinstance(message, bytes) or message.get("hello") != 1 or message.get("id") != self.connection.id:
            raise WireError("a runtime answers hello with its hello and its id")
        self._writer = writer
        writer.write(pack({"watching": self._watching}))

    def _take(self, message: bytes | dict[str, Any]) -> None:
        if isinstance(message, bytes):
            self.store.insert(message)
        elif isinstance(message.get("ack"), Mapping):
            ack = dict(message["ack"])
            _, future = self._pending.get(str(ack.get("id")), (None, None))
            if future is not None and not future.done():
                future.set_result(ack)

    def _hang_up(self, reason: str) -> None:
        self._writer = None
        for _, future in self._pending.values():
            if not future.done():
                future.set_exception(CommandError(504, reason))
        self._pending = {}

    def _settle(self, tries: int) -> None:
        """Decide, after a connection broke, whether the run is over and how."""
        fate = self._fate()
        if self.state.get("status") in FINAL:
            self.end("stopped", None)
        elif fate is not None:
            self.end(*fate)
        elif not self._is_announced():
            self.end("stopped", None)
        elif tries >= _MOST_TRIES:
            self.end("lost", f"process {self.connection.pid} lives, but the run in it does not answer any more")

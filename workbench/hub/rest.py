"""The REST routes of the hub, over any tornado handler that knows who asks."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from functools import wraps
from importlib.metadata import version
from typing import Any, ParamSpec

from tornado.http1connection import HTTP1Connection
from tornado.web import HTTPError, RequestHandler, authenticated, stream_request_body

from workbench.hub.archive import zipped_trace
from workbench.hub.classroom import roster
from workbench.hub.hub import Hub
from workbench.hub.schema import LARGEST_MESSAGE_BYTES, CommandError, parse_json

__all__ = ["REST", "RestMixin"]

_CHUNK_BYTES = 2**18

P = ParamSpec("P")


def _refusing(method: Callable[P, Awaitable[None]]) -> Callable[P, Awaitable[None]]:
    """The method, with a refusal sent as JSON."""

    @wraps(method)
    async def _guarded(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            await method(*args, **kwargs)
        except CommandError as error:
            handler = args[0]
            assert isinstance(handler, RestMixin), "a method of a route"
            handler.answer({"status": "refused", "code": error.code, "reason": error.reason}, error.code)

    return _guarded


@stream_request_body
class RestMixin(RequestHandler):
    """What all routes share: the hub, small bodies, and refusals as JSON."""

    def initialize(self, hub: Hub, user_of: Callable[[Any], str]) -> None:
        """Called by tornado with the arguments of the route."""
        self.hub = hub
        self._user_of = user_of
        self._body = bytearray()

    def prepare(self) -> Awaitable[None] | None:
        """Refuse a large body before it is read."""
        length = self.request.headers.get("Content-Length", "0")
        if not length.isdigit() or int(length) > LARGEST_MESSAGE_BYTES:
            raise HTTPError(413, f"a message has at most {LARGEST_MESSAGE_BYTES:,} bytes")
        # one that comes in pieces, without its length, is cut off by the connection.
        assert isinstance(self.request.connection, HTTP1Connection), "tornado speaks HTTP/1"
        self.request.connection.set_max_body_size(LARGEST_MESSAGE_BYTES)
        return super().prepare()

    def data_received(self, chunk: bytes) -> None:
        """Keep the body."""
        self._body += chunk

    @property
    def user(self) -> str:
        """Who asks."""
        return self._user_of(self.current_user)

    def message(self) -> dict[str, Any]:
        """The JSON object of the body.

        Raises:
            CommandError: 400 or 413.
        """
        return parse_json(bytes(self._body))

    def answer(self, body: dict[str, Any], code: int = 200) -> None:
        """Send JSON."""
        self.set_status(code)
        self._set_headers("application/json")
        self.finish(json.dumps(body))

    async def send_bytes(self, data: bytes, kind: str = "application/octet-stream") -> None:
        """Send a part of an answer that is not JSON; `finish` ends it."""
        self._set_headers(kind)
        self.write(data)
        await self.flush()

    def _set_headers(self, kind: str) -> None:
        self.set_header("Content-Type", kind)
        self.set_header("Cache-Control", "no-store")
        self.set_header("X-Content-Type-Options", "nosniff")


class Health(RestMixin):
    """Is the hub there, and which version?"""

    @authenticated
    @_refusing
    async def get(self) -> None:
        """`ok`, `version`, the number of runs that the asker may see, and `is_instructor` for one who is."""
        runs = len(self.hub.runs(self.user))
        more = {"is_instructor": True} if self.hub.rules.is_instructor(self.user) else {}
        self.answer({"ok": True, "version": version("moe-workbench"), "runs": runs, **more})


class Runs(RestMixin):
    """The runs that the asker may see."""

    @authenticated
    @_refusing
    async def get(self) -> None:
        """Their states, oldest first."""
        self.answer({"runs": self.hub.runs(self.user)})

    @authenticated
    @_refusing
    async def post(self) -> None:
        """Start a run from a preset."""
        self.answer(await self.hub.start_run(self.message(), self.user), 201)


class Run(RestMixin):
    """One run."""

    @authenticated
    @_refusing
    async def get(self, run_id: str) -> None:
        """Its state."""
        self.answer(self.hub.state(run_id, self.user))


class Snapshot(RestMixin):
    """Everything a new viewer needs, at once."""

    @authenticated
    @_refusing
    async def get(self, run_id: str) -> None:
        """Frames, one after the other."""
        data, _ = self.hub.link(run_id, self.user).store.since(0)
        await self.send_bytes(data)
        self.finish()


class Commands(RestMixin):
    """What a run is told."""

    @authenticated
    @_refusing
    async def post(self, run_id: str) -> None:
        """202 and `accepted`, or the reason of a refusal."""
        ack = await self.hub.command(run_id, self.message(), self.user)
        if ack.get("status") == "accepted":
            self.answer(ack, 202)
            return
        code = ack.get("code")
        self.answer(ack, code if code in (403, 409, 422, 429) else 409)


class TraceFile(RestMixin):
    """The trace of a run, as one file."""

    @authenticated
    @_refusing
    async def get(self, run_id: str) -> None:
        """A zip of the trace on disk."""
        state = self.hub.link(run_id, self.user).state
        if self.hub.rules.role(self.user, state) != "owner":
            raise CommandError(403, "only the owner of a run may take its trace; it holds texts")
        file = await asyncio.to_thread(zipped_trace, state.get("folder"))
        self.set_header("Content-Disposition", f'attachment; filename="trace-{run_id[:12]}.zarr.zip"')
        with file:
            while chunk := await asyncio.to_thread(file.read, _CHUNK_BYTES):
                await self.send_bytes(chunk, "application/zip")
        self.finish()


class Presets(RestMixin):
    """What can be started."""

    @authenticated
    @_refusing
    async def get(self) -> None:
        """Lessons with their options and bounds."""
        self.answer({"presets": self.hub.presets()})


class Roster(RestMixin):
    """Who runs what, for an instructor."""

    @authenticated
    @_refusing
    async def get(self) -> None:
        """Counts and no texts."""
        self.hub.rules.check_instructor(self.user)
        self.answer({"runs": roster(self.hub.states())})


class Broadcast(RestMixin):
    """One command for every run, from an instructor."""

    @authenticated
    @_refusing
    async def post(self) -> None:
        """How many accepted it, and why the others did not."""
        self.answer(await self.hub.broadcast(self.message(), self.user))


REST: dict[str, type[RestMixin]] = {
    "health": Health,
    "runs": Runs,
    "presets": Presets,
    "roster": Roster,
    "broadcast": Broadcast,
    "runs/([^/]+)": Run,
    "runs/([^/]+)/snapshot": Snapshot,
    "runs/([^/]+)/commands": Commands,
    "runs/([^/]+)/trace": TraceFile,
}
"""Routes below the API's address."""

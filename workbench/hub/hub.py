"""The hub: it finds runs, keeps a mirror of each, and knows who watches and who may command."""

import asyncio
import logging
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, final

from workbench.hub import places
from workbench.hub.children import CHILD, Caps, Children
from workbench.hub.commands import HUB_COMMANDS, Command, check_choice, check_command
from workbench.hub.lessons import LESSONS, read_request
from workbench.hub.link import Link
from workbench.hub.roles import Rules
from workbench.hub.run_list import RunList
from workbench.hub.schema import CommandError, check_arguments
from workbench.hub.socket_frames import binary_message, text_message
from workbench.hub.stream import Fanout

__all__ = ["MOST_VIEWERS", "Hub"]

MOST_VIEWERS = 500

_log = logging.getLogger(__name__)

_SCAN_SECONDS = 1.0
_KEPT_ENDED = 20
_KEPT_ENDED_BYTES = 256 * 2**20
_UNKNOWN = "there is no such run on this server; it may have ended before the server started"


@final
class Hub:
    """All runs of this machine's user, for all who watch them through this server.

    Args:
        rules: who may do what.
        caps: of runs that this server starts; None starts none.
        name: of this hub, as runs may show it.
        folder: of connection files; None for the one of this user.
        most_viewers: connections to streams, in all.
        scan_seconds: how often new runs are looked for.
        child_command: what a started run is; the workbench's own by default.
    """

    def __init__(
        self,
        *,
        rules: Rules | None = None,
        caps: Caps | None = None,
        name: str = "hub",
        folder: Path | None = None,
        most_viewers: int = MOST_VIEWERS,
        scan_seconds: float = _SCAN_SECONDS,
        child_command: Sequence[str] = CHILD,
    ) -> None:
        self.rules = rules or Rules()
        self.most_viewers = most_viewers
        self.run_list = RunList(self.runs, frame_message=text_message)
        self._children = (
            None if caps is None else Children(caps, on_change=self._child_changed, command=tuple(child_command))
        )
        self._name = name
        self._folder = folder
        self._scan_seconds = scan_seconds
        self._links: dict[str, Link] = {}
        self._fanouts: dict[str, Fanout] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._scanner: asyncio.Task[None] | None = None

    @property
    def num_viewers(self) -> int:
        """Open streams, those of the list included."""
        return self.run_list.num_viewers + sum(fanout.num_viewers for fanout in self._fanouts.values())

    async def start(self) -> None:
        """Look for runs from now on."""
        if self._scanner is None:
            self.scan()
            self._scanner = asyncio.create_task(self._scan_forever())

    async def stop(self) -> None:
        """End the runs that this server started; let go of the others, which go on."""
        if self._children is not None:
            await self._children.close()
        self.run_list.close()
        tasks = [*self._tasks.values(), *([self._scanner] if self._scanner is not None else [])]
        self._scanner = None
        for task in tasks:
            task.cancel()
        for task in tasks:
            with suppress(asyncio.CancelledError):
                await task
        for fanout in self._fanouts.values():
            fanout.close()
        self._links, self._fanouts, self._tasks = {}, {}, {}

    def scan(self) -> None:
        """Look once: link to new runs, and remove the files of dead ones."""
        for path in places.connection_files(self._folder):
            if path.stem not in self._links:
                connection = places.read_connection(path)
                if connection is not None and places.is_alive(connection.pid):
                    self._link(connection)
                elif connection is not None:
                    places.remove_connection(connection, self._folder)
        self._forget_oldest()

    def states(self) -> list[dict[str, Any]]:
        """The state of every run, oldest first."""
        known = sorted(self._links.values(), key=lambda link: link.connection.started_at)
        begun = [] if self._children is None else self._children.states()
        return [link.state for link in known] + [state for state in begun if state["id"] not in self._links]

    def runs(self, user: str) -> list[dict[str, Any]]:
        """The runs that a person may see, each with that person's `role`."""
        found = ({**state, "role": self.rules.role(user, state)} for state in self.states())
        return [state for state in found if state["role"] is not None]

    def state(self, run_id: str, user: str) -> dict[str, Any]:
        """The state of a run that a person may see.

        Raises:
            CommandError: 404, also for a run that is not theirs to see.
        """
        if run_id not in self._links and self._scanner is not None:
            # a page may hear of a run from the run itself, sooner than the next look.
            self.scan()
        for state in self.runs(user):
            if state["id"] == run_id:
                return state
        raise CommandError(404, _UNKNOWN)

    def link(self, run_id: str, user: str) -> Link:
        """A run that a person may see.

        Raises:
            CommandError: 404, also for a run that is not theirs to see, and while it starts.
        """
        link = self._links.get(run_id)
        if link is None and self._children is not None and self._children.knows(run_id):
            self.state(run_id, user)
            raise CommandError(404, "the run is starting; try again in a second")
        if link is None or self.rules.role(user, link.state) is None:
            raise CommandError(404, _UNKNOWN)
        return link

    def fanout(self, run_id: str, user: str) -> Fanout:
        """The viewers of a run that a person may see.

        Raises:
            CommandError: 404, as for `link`.
        """
        link = self.link(run_id, user)
        if run_id not in self._fanouts:
            self._fanouts[run_id] = Fanout(link.store, frame_message=binary_message, on_watch=link.watch)
        return self._fanouts[run_id]

    def check_room(self) -> None:
        """Nothing, or a refusal of one more viewer.

        Raises:
            CommandError: 429.
        """
        if self.num_viewers >= self.most_viewers:
            raise CommandError(429, f"this server has {self.most_viewers} viewers, its limit; close another tab first")

    async def command(self, run_id: str, message: Mapping[str, Any], user: str) -> dict[str, Any]:
        """Pass a command on; the run's answer.

        Raises:
            CommandError: 404 no such run; 403 not this person's to drive; 422 no command; and as `Link.send`.
        """
        link = self.link(run_id, user)
        command = check_command(message, actor=self.rules.actor(user))
        self.rules.check_drive(user, link.state)
        check_choice(command, link.state)
        ack = await link.send(command, is_owner=self.rules.is_owner(user, link.state))
        _log.info("run %s: %s from %s, %s", run_id[:8], command.op, command.actor, ack.get("status"))
        return ack

    def presets(self) -> list[dict[str, Any]]:
        """What can be started here; nothing where this server starts no runs."""
        return [] if self._children is None else [lesson.to_json() for lesson in LESSONS.values()]

    async def start_run(self, message: Mapping[str, Any], user: str) -> dict[str, Any]:
        """Start a run from a preset or a link: its `id` and `queue_place`.

        Raises:
            CommandError: 422 wrong settings; 409 over a cap, or this server starts no runs.
        """
        lesson, options = read_request(message)
        if self._children is None:
            raise CommandError(409, "this server starts no runs; start one in a notebook or with `workbench train`")
        owner = self.rules.actor(user)
        return await self._children.start(preset=lesson.id, title=lesson.title, options=options, owner=owner)

    async def broadcast(self, message: Mapping[str, Any], user: str) -> dict[str, Any]:
        """Tell every run something: how many `accepted`, and the reasons of those that `refused`.

        Raises:
            CommandError: 403 not an instructor; 422 no command.
        """
        self.rules.check_instructor(user)
        wanted = check_arguments("broadcast", HUB_COMMANDS["broadcast"], dict(message))
        command = check_command({"id": "broadcast", **wanted}, actor=self.rules.actor(user))
        links = [link for link in self._links.values() if not link.is_over]
        acks = await asyncio.gather(*(self._tell(link, command) for link in links))
        refused = [ack for ack in acks if ack.get("status") != "accepted"]
        return {"accepted": len(acks) - len(refused), "refused": refused}

    async def _tell(self, link: Link, command: Command) -> dict[str, Any]:
        own = replace(command, id=uuid.uuid4().hex)
        named = {"owner": link.state["owner"], "id": link.connection.id[:8]}
        try:
            check_choice(own, link.state)
            ack = await link.send(own, is_owner=False, is_broadcast=True)
        except CommandError as error:
            return {**named, "status": "refused", "reason": error.reason}
        return {**named, "status": ack.get("status"), "reason": ack.get("reason")}

    async def _scan_forever(self) -> None:
        while True:
            await asyncio.sleep(self._scan_seconds)
            self.scan()

    def _link(self, connection: places.Connection) -> None:
        path = (self._folder or places.runtime_dir()) / f"{connection.id}.json"
        fate = partial(self._fate, connection)
        link = Link(connection, name=self._name, is_announced=path.exists, fate=fate)
        link.store.listen(self.run_list.changed)
        self._links[connection.id] = link
        self._tasks[connection.id] = asyncio.create_task(self._follow(link))
        self.run_list.changed()

    def _fate(self, connection: places.Connection) -> tuple[str, str | None] | None:
        """How the process of a run ended; None while it lives. One that we started is only over once we know how."""
        if self._children is not None and self._children.knows(connection.id):
            return self._children.fate(connection.id)
        if places.is_alive(connection.pid):
            return None
        return "lost", f"process {connection.pid} ended without a word"

    def _child_changed(self, run_id: str) -> None:
        """A run that ended before it could be reached is shown all the same."""
        assert self._children is not None, "a child belongs to the children"
        fate = self._children.fate(run_id)
        if fate is not None and run_id not in self._links:
            state = self._children.state(run_id)
            facts = {name: state[name] for name in ("id", "title", "owner", "started_at")}
            connection = places.Connection(socket="", secret="", pid=state["pid"] or 0, **facts)
            link = Link(connection, name=self._name, is_announced=bool, fate=partial(self._fate, connection))
            link.end(*fate, state=state)
            self._links[run_id] = link
        self.run_list.changed()

    async def _follow(self, link: Link) -> None:
        await link.run()
        if not places.is_alive(link.connection.pid) or link.state["status"] == "lost":
            places.remove_connection(link.connection, self._folder)
        self.run_list.changed()

    def _forget_oldest(self) -> None:
        """Mirrors of ended runs that nobody watches are kept up to a number, and up to a size."""
        watched = {name for name, fanout in self._fanouts.items() if fanout.num_viewers}
        ended = [name for name, link in self._links.items() if link.is_over and name not in watched]
        num_bytes = sum(self._links[name].store.num_bytes for name in ended)
        while len(ended) > _KEPT_ENDED or num_bytes > _KEPT_ENDED_BYTES:
            name = ended.pop(0)
            num_bytes -= self._links[name].store.num_bytes
            del self._links[name]
            self._tasks.pop(name, None)
            if name in self._fanouts:
                self._fanouts.pop(name).close()

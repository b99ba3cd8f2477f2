"""The runtime's end of the wire: a thread that hears hubs over a Unix socket and never touches the model."""

import asyncio
import hmac
import os
import secrets
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, final

from workbench.hub.commands import check_choice, check_command
from workbench.hub.places import Connection, remove_connection, socket_path, write_connection
from workbench.hub.schema import CommandError
from workbench.hub.wire import LIMIT_TO_RUNTIME, Inbox, WireError, pack
from workbench.live.watched import Watched

__all__ = ["Control", "answer"]

_HELLO_SECONDS = 5.0
_MESSAGE_BYTES = 2**20
_READ_BYTES = 2**16


@final
class Control:
    """Announces a run, sends its frames to every hub that knows its secret, and takes commands from them.

    Args:
        run: checked commands are handed to it.

    Raises:
        OSError: the socket or the connection file cannot be made.
    """

    def __init__(self, run: Watched):
        self._run = run
        self._path = socket_path(run.run_id)
        self._connection = Connection(
            id=run.run_id,
            socket=str(self._path),
            secret=secrets.token_hex(32),
            pid=os.getpid(),
            title=run.title,
            owner=run.owner,
            started_at=run.started_at,
        )
        self._is_ready, self._failure = threading.Event(), ""
        self._loop = asyncio.new_event_loop()
        self._closing = asyncio.Event()
        self._thread = threading.Thread(target=self._serve, name="workbench control", daemon=True)
        self._thread.start()
        self._is_ready.wait()
        if self._failure:
            raise OSError(f"nobody can watch this run from outside: {self._failure}")
        write_connection(self._connection)

    def close(self) -> None:
        """Take back the announcement, let hubs read what is published, and end the thread."""
        remove_connection(self._connection)
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._closing.set)
            self._thread.join(timeout=5.0)

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._listen())
        finally:
            self._is_ready.set()
            self._loop.close()

    async def _listen(self) -> None:
        tasks: set[asyncio.Task[None]] = set()

        async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None, "a connection is served by a task"
            tasks.add(task)
            try:
                await self._talk(reader, writer)
            finally:
                tasks.discard(task)

        try:
            server = await asyncio.start_unix_server(greet, path=self._path)
        except OSError as error:
            self._failure = str(error)
            return
        Path(self._path).chmod(0o600)
        self._is_ready.set()
        async with server:
            await self._closing.wait()
            server.close()
            if tasks:
                await asyncio.wait(tasks, timeout=2.0)
            for task in tasks:
                task.cancel()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inbox, who, sender = Inbox(LIMIT_TO_RUNTIME), object(), None
        news = asyncio.Event()
        forget = self._run.store.listen(lambda: self._wake(news))
        closing = asyncio.create_task(self._closing.wait())
        try:
            async for message in _messages(reader, inbox, closing):
                if sender is None:
                    since = self._since(message)
                    writer.write(pack({"hello": 1, "id": self._run.run_id, "title": self._run.title}))
                    sender = asyncio.create_task(self._send(writer, since, news))
                elif isinstance(message.get("command"), dict):
                    writer.write(pack({"ack": answer(self._run, message["command"])}))
                elif isinstance(message.get("watching"), dict):
                    self._run.watch(who, _topics(message["watching"]))
        except (OSError, WireError, TimeoutError, _WrongSecretError):
            pass
        finally:
            forget()
            closing.cancel()
            self._run.watch(who, ())
            await self._finish(writer, sender, news)

    async def _finish(
        self, writer: asyncio.StreamWriter, sender: "asyncio.Task[None] | None", news: asyncio.Event
    ) -> None:
        """Let a hub read the last frames, when it is this side that ends."""
        if sender is not None and self._closing.is_set():
            news.set()
            with suppress(TimeoutError, OSError):
                await asyncio.wait_for(sender, 1.0)
        elif sender is not None:
            sender.cancel()
        writer.close()

    def _since(self, hello: Mapping[str, Any]) -> int:
        secret, since = hello.get("secret"), hello.get("since")
        if not isinstance(secret, str) or not hmac.compare_digest(secret.encode(), self._connection.secret.encode()):
            raise _WrongSecretError
        return since if isinstance(since, int) and since >= 0 else 0

    async def _send(self, writer: asyncio.StreamWriter, since: int, news: asyncio.Event) -> None:
        while True:
            news.clear()
            data, since = self._run.store.since(since, limit_bytes=_MESSAGE_BYTES)
            if data:
                writer.write(pack(data))
                await writer.drain()
            elif self._closing.is_set():
                return
            else:
                await news.wait()

    def _wake(self, news: asyncio.Event) -> None:
        # the loop may have ended while a last frame was published.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(news.set)


def answer(run: Watched, message: Mapping[str, Any]) -> dict[str, Any]:
    """The acknowledgement of a command; an accepted one is on the desk."""
    name = message.get("id")
    try:
        command = check_command({key: value for key, value in message.items() if key != "is_broadcast"})
        known = run.ledger.answer_to(command)
        if known is not None:
            return known
        check_choice(command, run.store.state)
        _check_driver(run, command.op, command.actor, is_broadcast=message.get("is_broadcast") is True)
    except CommandError as error:
        return {"id": name, "status": "refused", "code": error.code, "reason": str(error)}
    ack = {"id": command.id, "status": "accepted", "code": 202, "reason": "", "step": run.trainer.step}
    run.ledger.note(command, ack)
    run.accept(command)
    return ack


def _check_driver(run: Watched, op: str, actor: str, *, is_broadcast: bool) -> None:
    if is_broadcast or op == "take_over":
        return
    if run.driver is None:
        run.driver = actor
    if run.driver != actor:
        raise CommandError(403, f"this run is driven by {run.driver}; take over first, then ask again")


class _WrongSecretError(Exception):
    pass


async def _messages(reader: asyncio.StreamReader, inbox: Inbox, closing: "asyncio.Task[bool]") -> Any:
    """JSON messages until the other side goes, or this one closes; the first must come soon."""
    timeout: float | None = _HELLO_SECONDS
    while True:
        reading = asyncio.create_task(reader.read(_READ_BYTES))
        done, _ = await asyncio.wait({reading, closing}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        if reading not in done:
            reading.cancel()
            return
        data = reading.result()
        if not data:
            return
        for message in inbox.feed(data):
            if isinstance(message, bytes):
                raise WireError("a hub sends no frames")
            timeout = None
            yield message


def _topics(watching: Mapping[str, Any]) -> tuple[str, ...]:
    topics = watching.get("topics")
    return tuple(topic for topic in topics if isinstance(topic, str)) if isinstance(topics, list) else ()

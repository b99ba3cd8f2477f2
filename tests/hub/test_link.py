"""The hub's end of a run: it mirrors, resumes, commands, and says how a run ended."""

import asyncio
import json
import os
import struct
from contextlib import asynccontextmanager

import pytest

from workbench.hub import link as links
from workbench.hub import places
from workbench.hub.commands import Command
from workbench.hub.frames import split_frames
from workbench.hub.link import Link
from workbench.hub.schema import CommandError
from workbench.hub.wire import pack

PAUSE = Command("c-1", "pause", {}, "ana")


def make(connection, *, fate=lambda: None, announced=lambda: True):
    return Link(connection, name="test", is_announced=announced, fate=fate)


@asynccontextmanager
async def linked(FakeRuntime, folder, until, **options):
    """A run and a connected link to it."""
    runtime = FakeRuntime(folder=folder)
    await runtime.start()
    link = make(runtime.connection, **options)
    task = asyncio.create_task(link.run())
    try:
        await until(lambda: link.is_connected)
        yield runtime, link
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await runtime.close()


def payloads(store, topic="loss_curves"):
    return [frame.seq for frame, _ in split_frames(store.since(0, topics=[topic])[0])]


def test_the_mirror_holds_what_the_run_published(FakeRuntime, folder, until):
    async def scenario():
        async with linked(FakeRuntime, folder, until) as (runtime, link):
            for _ in range(5):
                runtime.one_step()
            await until(lambda: link.store.seq == runtime.store.seq)
            assert link.store.since(0) == runtime.store.since(0)
            assert link.state["step"] == 5

    asyncio.run(scenario())


def test_a_broken_connection_is_taken_up_without_a_gap(FakeRuntime, folder, until):
    async def scenario():
        async with linked(FakeRuntime, folder, until) as (runtime, link):
            runtime.one_step()
            await until(lambda: link.store.seq == runtime.store.seq)
            for writer in list(runtime.writers):
                writer.close()
            await until(lambda: not link.is_connected)
            runtime.one_step()
            await until(lambda: link.is_connected and link.store.seq == runtime.store.seq)
            assert payloads(link.store) == payloads(runtime.store)
            assert len(payloads(link.store)) == 2

    asyncio.run(scenario())


def test_a_command_gets_its_answer(FakeRuntime, folder, until):
    async def scenario():
        async with linked(FakeRuntime, folder, until) as (runtime, link):
            ack = await link.send(PAUSE, is_owner=True)
            assert (ack["status"], ack["code"]) == ("accepted", 202)
            assert await link.send(PAUSE, is_owner=True) == ack
            sent = [message["command"] for message in runtime.asked if "command" in message]
            assert sent[0] == {"id": "c-1", "op": "pause", "args": {}, "actor": "ana", "is_owner": True}
            other = Command("c-2", "pause", {}, "bob")
            assert (await link.send(other, is_owner=False))["code"] == 403
            assert (await link.send(other, is_owner=False, is_broadcast=True))["status"] == "accepted"

    asyncio.run(scenario())


def test_one_id_sent_twice_at_once_is_one_command(FakeRuntime, folder, until):
    async def scenario():
        async with linked(FakeRuntime, folder, until) as (runtime, link):
            first, second = await asyncio.gather(*(link.send(PAUSE, is_owner=True) for _ in range(2)))
            assert first == second
            assert sum("command" in message for message in runtime.asked) == 1
            task = asyncio.create_task(link.send(PAUSE, is_owner=True))
            await asyncio.sleep(0)
            with pytest.raises(CommandError, match="used by another command") as refused:
                await link.send(Command("c-1", "stop", {}, "bob"), is_owner=False)
            assert refused.value.code == 409
            await task

    asyncio.run(scenario())


def test_a_run_that_does_not_answer_is_504(FakeRuntime, folder, until, monkeypatch):
    monkeypatch.setattr(links, "ANSWER_SECONDS", 0.05)

    async def scenario():
        async with linked(FakeRuntime, folder, until) as (runtime, link):
            runtime.silent = True
            with pytest.raises(CommandError, match=r"did not answer within 0\.05 s; send the same id again") as refused:
                await link.send(PAUSE, is_owner=True)
            assert refused.value.code == 504
            runtime.silent = False
            assert (await link.send(PAUSE, is_owner=True))["status"] == "accepted"

    asyncio.run(scenario())


def test_a_run_that_goes_away_answers_its_waiting_commands(FakeRuntime, folder, until):
    async def scenario():
        async with linked(FakeRuntime, folder, until) as (runtime, link):
            runtime.silent = True
            task = asyncio.create_task(link.send(PAUSE, is_owner=True))
            await until(lambda: any("command" in message for message in runtime.asked))
            for writer in list(runtime.writers):
                writer.close()
            with pytest.raises(CommandError, match="went away before it answered"):
                await task

    asyncio.run(scenario())


def test_a_command_that_is_too_long_or_one_too_many_is_refused(FakeRuntime, folder, until):
    async def scenario():
        async with linked(FakeRuntime, folder, until) as (runtime, link):
            with pytest.raises(CommandError) as refused:
                await link.send(Command("x", "generate", {"prompt": "a" * 70_000}, "ana"), is_owner=True)
            assert refused.value.code == 413
            runtime.silent = True
            waiting = [
                asyncio.create_task(link.send(Command(str(number), "pause", {}, "ana"), is_owner=True))
                for number in range(64)
            ]
            await asyncio.sleep(0)
            with pytest.raises(CommandError) as refused:
                await link.send(PAUSE, is_owner=True)
            assert refused.value.code == 429
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)

    asyncio.run(scenario())


def test_the_runtime_hears_what_is_watched_also_after_a_reconnection(FakeRuntime, folder, until):
    async def scenario():
        async with linked(FakeRuntime, folder, until) as (runtime, link):
            link.watch({"token_strip"}, 2)
            await until(lambda: runtime.watching == {"topics": ["token_strip"], "viewers": 2})
            runtime.watching = None
            for writer in list(runtime.writers):
                writer.close()
            await until(lambda: runtime.watching == {"topics": ["token_strip"], "viewers": 2})

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("last", "fate", "announced", "status", "said"),
    [
        ("finished", None, True, "finished", None),
        ("crashed", ("lost", "x"), True, "crashed", None),
        ("running", ("lost", "process 7 ended without a word"), True, "lost", "without a word; it was last heard of"),
        ("running", ("crashed", "exit code 1:\nMemoryError"), True, "crashed", "MemoryError"),
        ("running", None, False, "stopped", None),
    ],
)
def test_how_a_run_ended_is_said(FakeRuntime, folder, until, last, fate, announced, status, said):
    ending = []

    async def scenario():
        gone = {"fate": lambda: fate if ending else None, "announced": lambda: announced or not ending}
        async with linked(FakeRuntime, folder, until, **gone) as (runtime, link):
            runtime.one_step()
            await until(lambda: link.state["step"] == 1)
            ending.append(True)
            await runtime.close(status=last)
            await until(lambda: link.is_over)
            assert link.state["status"] == status
            assert link.state["error"] is None if said is None else said in link.state["error"]
            assert len(payloads(link.store)) == 1
            assert json.loads(next(f for f, _ in split_frames(link.store.since(0, topics=["state"])[0])).payload) == (
                link.store.state
            )
            with pytest.raises(CommandError) as refused:
                await link.send(PAUSE, is_owner=True)
            assert refused.value.code == 409

    asyncio.run(scenario())


def test_a_process_that_lives_but_does_not_listen_is_lost_after_a_while(tmp_path, monkeypatch):
    monkeypatch.setattr(links, "_WAITS_SECONDS", (0.0,))
    connection = places.Connection(
        id="a" * 32, socket=str(tmp_path / "x"), secret="", pid=os.getpid(), title="t", owner="ana", started_at=1.0
    )
    link = make(connection)
    asyncio.run(asyncio.wait_for(link.run(), 5))
    assert (link.state["status"], link.state["owner"]) == ("lost", "ana")
    assert "lives, but the run in it does not answer" in link.state["error"]


@pytest.mark.parametrize(
    "said",
    [
        pack({"hello": 1, "id": "b" * 32}),
        pack(b"frames first"),
        b"HTTP/1.1 200 OK\r\n\r\n",
        struct.pack("<Ic", 2**31, b"F"),
        pack({"hello": 1, "id": "a" * 32}) + pack(b"no frames"),
    ],
)
def test_a_runtime_that_says_something_else_is_hung_up_on(tmp_path, said, monkeypatch):
    monkeypatch.setattr(links, "_WAITS_SECONDS", (0.0,))
    connections = []

    async def greet(reader, writer):
        connections.append(writer)
        writer.write(said)
        await reader.read(-1)
        writer.close()

    async def scenario():
        path = tmp_path / "x"
        server = await asyncio.start_unix_server(greet, path)
        connection = places.Connection(
            id="a" * 32, socket=str(path), secret="", pid=os.getpid(), title="t", owner="ana", started_at=1.0
        )
        link = make(connection, fate=lambda: ("lost", "gone") if len(connections) > 2 else None)
        await asyncio.wait_for(link.run(), 5)
        server.close()
        assert link.state["status"] == "lost"
        assert not link.is_connected

    asyncio.run(scenario())


def test_a_wrong_secret_is_not_let_in(FakeRuntime, folder, until):
    async def scenario():
        runtime = FakeRuntime(folder=folder)
        await runtime.start()
        wrong = places.Connection(**{**vars(runtime.connection), "secret": "guess"})
        link = make(wrong)
        task = asyncio.create_task(link.run())
        await asyncio.sleep(0.2)
        assert not link.is_connected
        assert link.store.seq == 0
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await runtime.close()

    asyncio.run(scenario())


def test_a_run_that_never_spoke_ends_with_what_is_known(tmp_path):
    connection = places.Connection(id="a" * 32, socket="", secret="", pid=0, title="t", owner="ana", started_at=1.0)
    link = make(connection)
    link.end("crashed", "no memory", state={"preset": "first_run"})
    assert link.state["preset"] == "first_run"
    assert (link.state["status"], link.state["error"], link.store.seq) == ("crashed", "no memory", 1)

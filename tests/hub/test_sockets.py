"""Streams over a real server: resumption, limits, and readers that harm nobody else."""

import asyncio
import json
import os
import socket as sockets

import pytest
from tornado.httpclient import HTTPClientError

from workbench.hub import stream
from workbench.hub.frames import split_frames
from workbench.hub.roles import Rules


async def read_until(page, condition, seconds=5.0):
    """Frames of a page until one of them is what is waited for."""
    frames = []
    async with asyncio.timeout(seconds):
        while not any(condition(frame) for frame in frames):
            message = await page.read_message()
            assert message is not None, f"closed: {page.close_code} {page.close_reason}"
            frames += [frame for frame, _ in split_frames(message)]
    return frames


def test_a_page_sees_the_run_and_what_changes(serve):
    async def scenario():
        async with serve("ana") as server:
            [run] = server.runs
            run.one_step()
            page = await server.watch(f"/runs/{run.id}/stream")
            first = await read_until(page, lambda frame: frame.topic == "expert_load")
            assert {frame.topic for frame in first} == {"state", "loss_curves", "expert_load"}
            run.one_step()
            more = await read_until(page, lambda frame: frame.topic == "state" and frame.step == 2)
            assert min(frame.seq for frame in more) > max(frame.seq for frame in first)
            page.close()

    asyncio.run(scenario())


def test_a_page_that_comes_back_gets_what_it_missed_and_nothing_twice(serve):
    async def scenario():
        async with serve("ana") as server:
            [run] = server.runs
            page = await server.watch(f"/runs/{run.id}/stream?since=0")
            run.one_step()
            seen = await read_until(page, lambda frame: frame.topic == "state" and frame.step == 1)
            last = max(frame.seq for frame in seen)
            page.close()
            for _ in range(5):
                run.one_step()
            page = await server.watch(f"/runs/{run.id}/stream?since={last}")
            more = await read_until(page, lambda frame: frame.topic == "state" and frame.step == 6)
            assert [frame.step for frame in more if frame.topic == "loss_curves"] == [2, 3, 4, 5, 6]
            assert min(frame.seq for frame in more) > last
            page.close()

    asyncio.run(scenario())


def test_the_run_hears_what_its_pages_look_at(serve, until):
    async def scenario():
        async with serve("ana") as server:
            [run] = server.runs
            page = await server.watch(f"/runs/{run.id}/stream")
            await page.write_message(json.dumps({"topics": ["token_strip"], "rate": 5}))
            await until(lambda: run.watching == {"topics": ["commands", "state", "token_strip"], "viewers": 1})
            await page.write_message(json.dumps({"rate": 0}))
            await until(lambda: run.watching == {"topics": [], "viewers": 1})
            page.close()
            await until(lambda: run.watching == {"topics": [], "viewers": 0})

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "message",
    ["{", "[]", '{"rate": -1}', '{"topics": 3}', '{"op": "pause"}', b"\xff", "x" * 5000, '{"rate": NaN}'],
)
def test_a_page_that_sends_something_else_is_shut_out(serve, message, until):
    async def scenario():
        async with serve("ana") as server:
            [run] = server.runs
            page, other = [await server.watch(f"/runs/{run.id}/stream") for _ in range(2)]
            await page.write_message(message, binary=isinstance(message, bytes))
            async with asyncio.timeout(5):
                while await page.read_message() is not None:
                    pass
            assert page.close_code in (1008, 1009)
            run.one_step()
            await read_until(other, lambda frame: frame.step == 1)
            await until(lambda: server.hub.num_viewers == 1)
            other.close()

    asyncio.run(scenario())


def test_a_page_that_floods_is_shut_out(serve):
    async def scenario():
        async with serve("ana") as server:
            for path in (f"/runs/{server.runs[0].id}/stream", "/runs/stream"):
                page = await server.watch(path)
                for _ in range(60):
                    await page.write_message('{"rate": 1}')
                async with asyncio.timeout(5):
                    while await page.read_message() is not None:
                        pass
                assert page.close_code == 1008

    asyncio.run(scenario())


@pytest.mark.parametrize("since", ["-1", "x", "1e3", "9" * 19, "%00", "%D9%A1"])
def test_a_number_that_is_none_is_400(serve, since):
    async def scenario():
        async with serve("ana") as server:
            with pytest.raises(HTTPClientError) as refused:
                await server.watch(f"/runs/{server.runs[0].id}/stream?since={since}")
            assert refused.value.code == 400

    asyncio.run(scenario())


def test_streams_of_others_and_of_nobody_are_404(serve):
    async def scenario():
        async with serve("ana", rules=Rules(is_shared=True)) as server:
            for run, token in ((server.runs[0].id, "token-of-bob"), ("0" * 32, "token-of-ana"), ("..", "token-of-ana")):
                with pytest.raises(HTTPClientError) as refused:
                    await server.watch(f"/runs/{run}/stream", token=token)
                assert refused.value.code == 404

    asyncio.run(scenario())


async def mute(server, run) -> sockets.socket:
    """A connection that asks for the stream and never reads a byte of it."""
    sock = sockets.socket()
    sock.setsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF, 4096)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", server.port))
    head = f"GET /workbench/api/v1/runs/{run}/stream HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n"
    head += "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    head += "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
    await asyncio.get_running_loop().sock_sendall(sock, f"{head}Authorization: token token-of-ana\r\n\r\n".encode())
    return sock


@pytest.mark.slow
def test_a_socket_that_is_held_open_and_never_read_harms_nobody_and_is_cut_off(serve, until, monkeypatch):
    monkeypatch.setattr(stream, "_STUCK_SECONDS", 1.0)

    async def scenario():
        async with serve("ana") as server:
            [run] = server.runs
            silent = [await mute(server, run.id) for _ in range(20)]
            page = await server.watch(f"/runs/{run.id}/stream")
            await until(lambda: server.hub.num_viewers == 21)
            loop, late = asyncio.get_running_loop(), []
            for number in range(40):
                began = loop.time()
                run.put("token_strip", os.urandom(400_000), 1)
                wanted = run.store.seq
                await read_until(page, lambda frame, wanted=wanted: frame.seq == wanted)
                late.append(loop.time() - began)
                await asyncio.sleep(0.05)
                assert number < 5 or server.hub.num_viewers <= 21
            assert sorted(late)[len(late) // 2] < 0.3
            await until(lambda: server.hub.num_viewers == 1, 10)
            page.close()
            for sock in silent:
                sock.close()

    asyncio.run(scenario())


@pytest.mark.slow
def test_500_pages_are_served_and_the_next_is_told_why_not(serve, until):
    async def scenario():
        async with serve("ana") as server:
            [run] = server.runs
            pages = [await server.watch(f"/runs/{run.id}/stream") for _ in range(500)]
            for path in (f"/runs/{run.id}/stream", "/runs/stream"):
                refused = await server.watch(path)
                assert await refused.read_message() is None
                assert refused.close_code == 1013
                assert refused.close_reason == "this server has 500 viewers, its limit; close another tab first"
            run.one_step()
            got = await asyncio.gather(*(read_until(page, lambda frame: frame.step == 1, 30) for page in pages))
            assert len(got) == 500
            assert (await server.ask("/health"))[0] == 200
            pages.pop().close()
            await until(lambda: server.hub.num_viewers == 499)
            again = await server.watch(f"/runs/{run.id}/stream")
            await read_until(again, lambda frame: frame.step == 1)
            for page in [*pages, again]:
                page.close()
            await until(lambda: server.hub.num_viewers == 0, 30)

    asyncio.run(scenario())


def test_the_list_of_runs_follows_them(serve, FakeRuntime, folder):
    async def scenario():
        async with serve("ana") as server:
            page = await server.watch("/runs/stream")
            assert len(json.loads(await page.read_message())["runs"]) == 1
            other = FakeRuntime(folder=folder)
            await other.start()
            async with asyncio.timeout(5):
                while len(json.loads(await page.read_message())["runs"]) != 2:
                    pass
                await other.close()
                while json.loads(await page.read_message())["runs"][1]["status"] != "stopped":
                    pass
            page.close()

    asyncio.run(scenario())

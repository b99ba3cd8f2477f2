"""Requests: small bodies, one answer per id, and a reason with every refusal."""

import asyncio

import pytest

from workbench.hub.roles import Rules

SHARED = Rules(is_shared=True, instructors=frozenset({"ida"}))


@pytest.mark.parametrize(
    ("body", "code", "said"),
    [
        ({"id": "a", "op": "exec", "args": {}}, 422, "unknown command 'exec'"),
        ({"id": "a", "op": "__import__", "args": {}}, 422, "unknown command"),
        ({"id": "a", "op": "step", "args": {"count": 1001}}, 422, "from 1 to 1000, got 1001"),
        ({"id": "a", "op": "step", "args": {"count": "1; import os"}}, 422, "got '1; import os'"),
        ({"id": "a", "op": "pause", "args": {"path": "/etc"}}, 422, "no argument 'path'"),
        ({"id": "a", "op": "swap_router", "args": {"name": "os.system"}}, 422, "name must be a name"),
        ({"id": "a", "op": "swap_router", "args": {"name": "nonesuch"}}, 422, "no router is called"),
        ({"id": "a", "op": "set_cache_size", "args": {"slots": 4}}, 409, "offloads nothing"),
        ({"op": "pause"}, 422, "id must be"),
        ({"id": "a", "op": "pause", "actor": 7}, 202, ""),
        ([], 400, "must be a JSON object"),
        (b"", 400, "must be JSON"),
        (b"{", 400, "must be JSON"),
        (b"\xff", 400, "must be JSON"),
        (b"[" * 50_000, 400, "must be JSON"),
        (b'{"id": NaN}', 400, "must be JSON"),
    ],
)
def test_bad_input_is_refused_with_its_code_and_a_reason(serve, until, body, code, said):
    async def scenario():
        async with serve("ana") as server:
            run = server.runs[0].id
            await until(lambda: "choices" in server.hub.link(run, "ana").state)
            found, answer = await server.ask(f"/runs/{run}/commands", body=body)
            assert found == code
            assert said in answer["reason"]
            assert answer["status"] == ("accepted" if code == 202 else "refused")

    asyncio.run(scenario())


def test_the_actor_is_who_is_logged_in_and_not_who_the_message_says(serve):
    async def scenario():
        async with serve("ana", rules=SHARED) as server:
            [run] = server.runs
            await server.ask(f"/runs/{run.id}/commands", body={"id": "a", "op": "pause", "actor": "ida"})
            assert run.state["driver"] == "ana"

    asyncio.run(scenario())


def test_a_command_that_comes_twice_is_done_once_and_answered_twice(serve):
    async def scenario():
        async with serve("ana") as server:
            [run] = server.runs
            run.one_step()
            first = await server.command(run.id, "annotate", text="here")
            run.one_step()
            assert await server.command(run.id, "annotate", text="here") == first
            assert [record["step"] for record in run.records.values()] == [1]
            code, answer = await server.command(run.id, "annotate", text="there")
            assert (code, answer["status"]) == (409, "refused")

    asyncio.run(scenario())


def test_who_does_not_drive_is_403_until_they_take_over(serve, until):
    rules = Rules(is_shared=True)

    async def scenario():
        async with serve("ana*", rules=rules) as server:
            [run] = server.runs
            run.state.update(drivers=["bob"])
            run.publish_state()
            await until(lambda: server.hub.link(run.id, "ana").state.get("drivers"))
            assert (await server.command(run.id, "pause", id="1"))[0] == 202
            code, answer = await server.command(run.id, "resume", id="2", token="token-of-bob")
            assert (code, answer["reason"]) == (403, "this run is driven by ana; take over first")
            assert (await server.command(run.id, "take_over", id="3", token="token-of-bob"))[0] == 202
            assert (await server.command(run.id, "resume", id="4", token="token-of-bob"))[0] == 202
            code, answer = await server.command(run.id, "pause", id="5", token="token-of-ida")
            assert (code, answer["reason"]) == (403, "ida may watch this run but not drive it; ask its owner")

    asyncio.run(scenario())


def test_a_large_body_is_refused_before_it_is_read(serve):
    async def scenario():
        async with serve("ana") as server:
            run = server.runs[0].id
            answer = await server.ask(f"/runs/{run}/commands", body=b" " * (64 * 1024 + 1), raw=True)
            assert answer.code == 413
            head = f"POST /workbench/api/v1/runs/{run}/commands HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n"
            head += "Authorization: token token-of-ana\r\n"
            assert b" 413 " in await exchange(server.port, f"{head}Content-Length: 100000000000\r\n\r\n".encode())
            assert b" 413 " in await exchange(server.port, f"{head}Content-Length: -1\r\n\r\n".encode())
            chunk = b"10000\r\n" + bytes(0x10000) + b"\r\n"
            chunked = f"{head}Transfer-Encoding: chunked\r\n\r\n".encode() + chunk * 3
            assert b" 400 " in await exchange(server.port, chunked)
            assert (await server.ask("/health"))[0] == 200

    asyncio.run(scenario())


async def exchange(port: int, data: bytes) -> bytes:
    """What a server answers to raw bytes before it hangs up or falls silent."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    try:
        return await asyncio.wait_for(reader.read(4096), 2)
    finally:
        writer.close()


def test_the_class_is_seen_by_its_instructor_only(serve, until):
    async def scenario():
        async with serve("ana", "bob", rules=SHARED) as server:
            await until(lambda: all("step" in state for state in server.hub.states()))
            for token in ("token-of-ana", "token-of-bob"):
                assert (await server.ask("/roster", token=token))[0] == 403
                assert (await server.ask("/broadcast", token=token, body={"op": "pause"}))[0] == 403
            code, found = await server.ask("/roster", token="token-of-ida")
            assert (code, sorted(row["owner"] for row in found["runs"])) == (200, ["ana", "bob"])
            assert "Invented" not in str(found)
            assert (await server.ask("/broadcast", token="token-of-ida", body={"op": "pause"}))[1]["accepted"] == 2
            assert [run.state["status"] for run in server.runs] == ["paused", "paused"]

    asyncio.run(scenario())


def test_the_trace_is_for_its_owner_only(serve, until):
    async def scenario():
        async with serve("ana*", rules=SHARED) as server:
            [run] = server.runs
            await until(lambda: server.hub.link(run.id, "ana").state.get("is_shared"))
            assert (await server.ask(f"/runs/{run.id}", token="token-of-bob"))[1]["role"] == "viewer"
            code, answer = await server.ask(f"/runs/{run.id}/trace", token="token-of-bob")
            assert (code, answer["reason"]) == (403, "only the owner of a run may take its trace; it holds texts")

    asyncio.run(scenario())


def test_a_run_that_says_odd_things_of_itself_breaks_nobody(serve, until):
    async def scenario():
        async with serve("ana", "bob") as server:
            odd, good = server.runs
            for state in (
                b"[]",
                b"{",
                b'{"choices": {"router": 7}, "step": "x", "started_at": null}',
                b'{"loss": NaN}',
            ):
                odd.put("state", state, 1)
                await asyncio.sleep(0.02)
                assert (await server.ask("/runs"))[0] == 200
                assert (await server.ask(f"/runs/{good.id}"))[0] == 200
            assert (await server.ask(f"/runs/{odd.id}"))[1]["loss"] is None

    asyncio.run(scenario())

"""The routes over plain tornado: what a page asks, and what it gets."""

import asyncio
import io
import zipfile

import pytest
from tornado.web import RequestHandler
from tornado.websocket import WebSocketHandler

from workbench.hub.frames import split_frames
from workbench.hub.handlers import API, routes
from workbench.hub.hub import Hub


def test_a_page_finds_a_run_sees_it_and_commands_it(serve):
    async def scenario():
        async with serve("ana") as server:
            [run] = server.runs
            run.one_step()
            assert await server.ask("/health") == (200, {"ok": True, "version": "0.1.0", "runs": 1})
            code, found = await server.ask("/runs")
            assert (code, [(state["id"], state["role"]) for state in found["runs"]]) == (200, [(run.id, "owner")])
            assert (await server.ask(f"/runs/{run.id}"))[1]["title"] == "Invented run"
            snapshot = await server.ask(f"/runs/{run.id}/snapshot", raw=True)
            assert {frame.topic for frame, _ in split_frames(snapshot.body)} >= {"state", "loss_curves", "expert_load"}
            code, ack = await server.command(run.id, "pause")
            assert (code, ack["status"], ack["step"]) == (202, "accepted", 1)
            assert run.state["status"] == "paused"

    asyncio.run(scenario())


def test_every_route_is_known_and_has_no_other_methods(serve):
    async def scenario():
        async with serve("ana") as server:
            run = server.runs[0].id
            answers = {
                path: (await server.ask(path, body={}))[0]
                for path in ("/health", "/presets", "/roster", f"/runs/{run}", f"/runs/{run}/snapshot", "/nothing")
            }
            assert set(answers.values()) == {404, 405}
            assert answers["/nothing"] == 404
            assert (await server.ask(f"/runs/{run}/commands"))[0] == 405
            assert (await server.ask(f"/runs/{run}", method="DELETE"))[0] == 405

    asyncio.run(scenario())


def test_the_routes_move_below_a_base_url(serve, folder):
    found = routes(RequestHandler, WebSocketHandler, Hub(folder=folder), prefix="/user/a.b")
    assert all(pattern.startswith(r"/user/a\.b" + API) for pattern, _, _ in found)


@pytest.mark.parametrize(
    "run_id",
    ["nothing", "0" * 32, "..", "%2e%2e%2f%2e%2e%2fetc%2fpasswd", "a" * 4000, "%00", "%27%3Cscript%3E", "stream%20"],
)
def test_a_hostile_name_of_a_run_is_404(serve, run_id):
    async def scenario():
        async with serve("ana") as server:
            for path in ("", "/snapshot", "/trace"):
                assert (await server.ask(f"/runs/{run_id}{path}"))[0] == 404
            assert (await server.ask(f"/runs/{run_id}/commands", body={"id": "a", "op": "pause"}))[0] == 404

    asyncio.run(scenario())


def test_the_trace_comes_as_one_file(serve, tmp_path):
    async def scenario():
        async with serve("ana") as server:
            [run] = server.runs
            assert (await server.ask(f"/runs/{run.id}/trace"))[0] == 404
            chunk = tmp_path / "trace.zarr" / "run" / "c0"
            chunk.parent.mkdir(parents=True)
            chunk.write_bytes(bytes(600_000))
            run.state["folder"] = str(tmp_path)
            run.publish_state()
            await asyncio.sleep(0.1)
            answer = await server.ask(f"/runs/{run.id}/trace", raw=True)
            assert (answer.code, answer.headers["Content-Type"]) == (200, "application/zip")
            assert zipfile.ZipFile(io.BytesIO(answer.body)).namelist() == ["run/c0"]

    asyncio.run(scenario())

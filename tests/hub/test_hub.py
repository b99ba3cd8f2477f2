"""The hub finds runs, keeps what they said, and knows whose they are."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from workbench.hub import hub as hubs
from workbench.hub import places
from workbench.hub.hub import Hub
from workbench.hub.roles import Rules
from workbench.hub.schema import CommandError

SHARED = Rules(is_shared=True, instructors=frozenset({"ida"}))
PAUSE = {"id": "c-1", "op": "pause", "args": {}}


def test_a_run_is_found_within_a_second_and_kept_after_its_end(FakeRuntime, folder, until):
    async def scenario():
        hub = Hub(rules=Rules(owner="ana"), folder=folder, scan_seconds=0.05)
        await hub.start()
        await hub.start()
        assert hub.runs("ana") == []
        runtime = FakeRuntime(folder=folder)
        await runtime.start()
        await until(lambda: hub.runs("ana") and hub.link(runtime.id, "ana").is_connected)
        runtime.one_step()
        await until(lambda: hub.runs("ana")[0]["step"] == 1)
        await runtime.close()
        await until(lambda: hub.runs("ana")[0]["status"] == "stopped")
        assert "loss_curves" in hub.link(runtime.id, "ana").store.topics
        await hub.stop()
        assert hub.runs("ana") == []

    asyncio.run(scenario())


def test_a_page_that_knows_a_run_sooner_than_the_hub_finds_it_at_once(FakeRuntime, folder, until):
    async def scenario():
        hub = Hub(rules=Rules(owner="ana"), folder=folder, scan_seconds=3600)
        await hub.start()
        runtime = FakeRuntime(folder=folder)
        await runtime.start()
        assert hub.runs("ana") == []
        assert hub.state(runtime.id, "ana")["id"] == runtime.id
        with pytest.raises(CommandError, match="no such run"):
            hub.state("another", "ana")
        await until(lambda: hub.link(runtime.id, "ana").is_connected)
        await runtime.close()
        await hub.stop()

    asyncio.run(scenario())


@pytest.mark.slow
def test_a_process_that_dies_without_a_word_is_lost_and_its_numbers_are_kept(folder, until, tmp_path):
    script = Path(__file__).with_name("fake_runtime.py")

    async def scenario():
        environment = {**os.environ, "JUPYTER_RUNTIME_DIR": str(folder)}
        with subprocess.Popen([sys.executable, script], env=environment, stdout=subprocess.PIPE) as process:
            hub = Hub(rules=Rules(owner="ana"), folder=folder / "workbench", scan_seconds=0.05)
            await hub.start()
            await until(lambda: hub.runs("ana") and (hub.runs("ana")[0].get("step") or 0) > 3, 30)
            [state] = hub.runs("ana")
            process.send_signal(signal.SIGKILL)
        await until(lambda: hub.runs("ana")[0]["status"] == "lost")
        [lost] = hub.runs("ana")
        assert lost["error"].startswith(f"process {state['pid']} ended without a word; it was last heard of at step ")
        assert lost["step"] >= state["step"]
        assert places.connection_files(folder / "workbench") == []
        assert hub.link(lost["id"], "ana").store.num_bytes > 1000
        await hub.stop()

    asyncio.run(scenario())


def test_the_file_of_a_dead_process_is_removed(folder):
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        pass
    connection = places.Connection(
        id="a" * 32, socket="/nowhere", secret="", pid=process.pid, title="", owner="", started_at=0.0
    )
    places.write_connection(connection, folder)
    Hub(folder=folder).scan()
    assert places.connection_files(folder) == []


def test_the_oldest_ended_runs_are_forgotten_but_not_while_somebody_watches(FakeRuntime, folder, until, monkeypatch):
    monkeypatch.setattr(hubs, "_KEPT_ENDED", 2)

    async def scenario():
        hub = Hub(rules=Rules(owner="ana"), folder=folder, scan_seconds=0.02)
        await hub.start()
        names = []
        for _ in range(4):
            runtime = FakeRuntime(folder=folder)
            await runtime.start()
            names.append(runtime.id)
            await until(lambda run=runtime: run.id in [s["id"] for s in hub.runs("ana")])
            await until(lambda run=runtime: hub.link(run.id, "ana").is_connected)
            await runtime.close()
            await until(lambda run=runtime: hub.link(run.id, "ana").is_over)
        await until(lambda: [state["id"] for state in hub.runs("ana")] == names[2:])
        await hub.stop()

    asyncio.run(scenario())


def test_large_mirrors_of_ended_runs_go_first(FakeRuntime, folder, until, monkeypatch):
    monkeypatch.setattr(hubs, "_KEPT_ENDED_BYTES", 50_000)

    async def scenario():
        hub = Hub(rules=Rules(owner="ana"), folder=folder, scan_seconds=0.02)
        await hub.start()
        for size in (60_000, 1000):
            runtime = FakeRuntime(folder=folder)
            await runtime.start()
            runtime.put("token_strip", bytes(size), 1)
            await until(lambda run=runtime: run.id in [state["id"] for state in hub.runs("ana")])
            await until(lambda run=runtime: "token_strip" in hub.link(run.id, "ana").store.topics)
            await runtime.close()
            await until(lambda: all(state["status"] == "stopped" for state in hub.runs("ana")))
        await until(lambda: [state["id"] for state in hub.runs("ana")] == [runtime.id])
        await hub.stop()

    asyncio.run(scenario())


def test_on_a_shared_server_people_see_their_own_runs_and_shared_ones(serve, until):
    async def scenario():
        async with serve("ana", "bob*", rules=SHARED) as server:
            hub, (own, shared) = server.hub, server.runs
            await until(lambda: hub.link(shared.id, "bob").state.get("is_shared"))
            assert [state["id"] for state in hub.runs("ana")] == [own.id, shared.id]
            assert [state["role"] for state in hub.runs("ana")] == ["owner", "viewer"]
            assert [state["id"] for state in hub.runs("bob")] == [shared.id]
            for ask in (lambda: hub.link(own.id, "bob"), lambda: hub.state(own.id, "bob")):
                with pytest.raises(CommandError) as refused:
                    ask()
                assert refused.value.code == 404
            with pytest.raises(CommandError) as refused:
                await hub.command(shared.id, PAUSE, "ana")
            assert refused.value.code == 403
            assert (await hub.command(own.id, PAUSE, "ana"))["status"] == "accepted"

    asyncio.run(scenario())


def test_a_run_cannot_say_that_it_is_another_or_somebody_elses(serve, until):
    async def scenario():
        async with serve("ana", rules=SHARED) as server:
            [run] = server.runs
            run.state.update(id="0" * 32, owner="bob", title="New title")
            run.publish_state()
            await until(lambda: server.hub.state(run.id, "ana")["title"] == "New title")
            assert server.hub.runs("bob") == []
            assert [state["owner"] for state in server.hub.runs("ana")] == ["ana"]

    asyncio.run(scenario())


def test_commands_are_logged_with_who_gave_them_and_without_what_they_say(serve, caplog):
    caplog.set_level("INFO", "workbench.hub")

    async def scenario():
        async with serve("ana") as server:
            [run] = server.runs
            await server.command(run.id, "generate", prompt="Dear diary")
            assert f"run {run.id[:8]}: generate from ana, accepted" in caplog.text
            assert "diary" not in caplog.text

    asyncio.run(scenario())


def test_a_name_that_the_run_does_not_offer_does_not_reach_it(serve, until):
    async def scenario():
        async with serve("ana") as server:
            [run] = server.runs
            await until(lambda: "choices" in server.hub.link(run.id, "ana").state)
            with pytest.raises(CommandError, match="no router is called 'nonesuch'; choose top_k, switch"):
                await server.hub.command(run.id, {"id": "a", "op": "swap_router", "args": {"name": "nonesuch"}}, "ana")
            assert not [message for message in run.asked if "command" in message]

    asyncio.run(scenario())


def test_an_instructor_tells_every_run_and_nobody_loses_the_wheel(serve):
    async def scenario():
        async with serve("ana", "bob", "ana", rules=SHARED) as server:
            ana, bob, over = server.runs
            await server.hub.command(ana.id, PAUSE, "ana")
            await over.close()
            told = {"op": "set_rate", "args": {"frames_per_second": 2}}
            for user in ("ana", "bob"):
                with pytest.raises(CommandError) as refused:
                    await server.hub.broadcast(told, user)
                assert refused.value.code == 403
            answer = await server.hub.broadcast(told, "ida")
            assert answer["accepted"] == 2
            assert [run.state["frames_per_second"] for run in (ana, bob)] == [2, 2]
            assert ana.state["driver"] == "ana"
            for wrong in ({"op": "exec"}, {"op": "set_rate"}, {}, {"op": "pause", "code": "x"}):
                with pytest.raises(CommandError) as refused:
                    await server.hub.broadcast(wrong, "ida")
                assert refused.value.code == 422
            refused = await server.hub.broadcast({"op": "swap_router", "args": {"name": "nonesuch"}}, "ida")
            assert refused["accepted"] == 0
            assert "no router is called" in refused["refused"][0]["reason"]
            assert len(refused["refused"][0]["id"]) == 8

    asyncio.run(scenario())


def test_a_server_that_starts_no_runs_says_so(folder):
    async def scenario():
        hub = Hub(folder=folder)
        assert hub.presets() == []
        with pytest.raises(CommandError, match="this server starts no runs") as refused:
            await hub.start_run({"preset": "first_run"}, "ana")
        assert refused.value.code == 409

    asyncio.run(scenario())

"""A started run is one capped process; whatever it does, it ends as a message."""

import asyncio
import json
import os
import signal
import sys
from contextlib import asynccontextmanager

import pytest

from workbench.hub import children as childrens
from workbench.hub import places
from workbench.hub.children import Caps, Children
from workbench.hub.hub import Hub
from workbench.hub.roles import Rules
from workbench.hub.schema import CommandError

WAIT = "import sys, time; sys.stdin.read(); time.sleep(60)"


@asynccontextmanager
async def family(code, **caps):
    """Children that run the given Python."""
    changed = []
    children = Children(Caps(**caps), on_change=changed.append, command=(sys.executable, "-c", code))
    children.changed = changed
    try:
        yield children
    finally:
        await children.close()


async def start(children, owner="ana", **options):
    return await children.start(preset="first_run", title="Watch", options=options, owner=owner)


def test_a_child_reads_its_request_and_has_its_caps(tmp_path, until):
    code = (
        "import json, os, resource, sys\n"
        "request = json.load(sys.stdin)\n"
        "facts = [request, os.environ['OMP_NUM_THREADS'], resource.getrlimit(resource.RLIMIT_AS), os.getsid(0)]\n"
        f"open({str(tmp_path / 'said')!r}, 'w').write(json.dumps(facts + ['JUPYTER_TOKEN' in os.environ]))"
    )

    async def scenario():
        async with family(code, threads=2, memory_bytes=2**32, seconds=77) as children:
            answer = await start(children, seed=3)
            assert answer["queue_place"] == 0
            assert places.is_run_id(answer["id"])
            await until(lambda: children.fate(answer["id"]))
            assert children.fate(answer["id"]) == ("finished", None)
            request, threads, memory, session, has_token = json.loads((tmp_path / "said").read_text())
            assert request == {
                "id": answer["id"],
                "preset": "first_run",
                "title": "Watch",
                "options": {"seed": 3},
                "owner": "ana",
                "caps": {"threads": 2, "memory_bytes": 2**32, "seconds": 77},
            }
            assert (threads, has_token) == ("2", False)
            assert memory == [2**32, 2**32] or sys.platform != "linux"
            assert session != os.getsid(0)

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JUPYTER_TOKEN", "secret")
        asyncio.run(scenario())


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("raise ValueError('top_k must be at least 1')", ["exit code 1", "ValueError: top_k must be at least 1"]),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", ["signal SIGSEGV", "it said nothing"]),
        ("import sys; sys.stdin.read(); bytearray(2**31)", ["exit code 1", "MemoryError"]),
        (r"import sys; sys.stderr.write('\x1b[31mred\x07' + 'x' * 10**6); sys.exit(3)", ["exit code 3", "xxx"]),
    ],
)
def test_a_crash_is_a_message_with_the_last_lines(code, said, until):
    async def scenario():
        async with family(code, memory_bytes=2**30) as children:
            run = (await start(children))["id"]
            status, error = await until(lambda: children.fate(run))
            assert status == "crashed"
            assert [word for word in said if word not in error] == []
            assert all(mark.isprintable() or mark == "\n" for mark in error)
            assert len(error) < 6000
            assert children.state(run)["error"] == error
            assert children.changed.count(run) == 2

    asyncio.run(scenario())


def test_only_the_last_lines_are_kept(until):
    async def scenario():
        async with family(
            "import sys\nfor i in range(1000): print('line', i, file=sys.stderr)\nsys.exit(1)"
        ) as children:
            run = (await start(children))["id"]
            _, error = await until(lambda: children.fate(run))
            assert error.splitlines()[1:] == [f"line {number}" for number in range(988, 1000)]

    asyncio.run(scenario())


def test_what_cannot_be_started_is_a_message_too(until):
    async def scenario():
        children = Children(Caps(), on_change=lambda run: None, command=("/nowhere/python",))
        run = (await start(children))["id"]
        status, error = await until(lambda: children.fate(run))
        assert (status, "could not be started" in error) == ("crashed", True)

    asyncio.run(scenario())


@pytest.mark.slow
def test_time_that_is_used_up_ends_a_run_and_all_that_it_started(until, monkeypatch, tmp_path):
    monkeypatch.setattr(childrens, "_GRACE_SECONDS", 0.2)
    monkeypatch.setattr(childrens, "_KILL_SECONDS", 0.5)
    code = (
        "import os, signal, sys, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nchild = os.fork()\n"
        f"if child: open({str(tmp_path / 'pid')!r}, 'w').write(str(child))\ntime.sleep(60)"
    )

    async def scenario():
        async with family(code, seconds=0.5) as children:
            run = (await start(children))["id"]
            assert await until(lambda: children.fate(run), 10) == ("stopped", "its 0.5 s are used up")
        await until(lambda: not _runs(int((tmp_path / "pid").read_text())))

    asyncio.run(scenario())


def _runs(pid: int) -> bool:
    """True for a process that is no zombie."""
    try:
        with open(f"/proc/{pid}/stat") as file:  # noqa: PTH123
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_user_has_one_run_and_a_server_so_many(until):
    async def scenario():
        async with family(WAIT, runs_in_all=2) as children:
            first = (await start(children, "ana"))["id"]
            with pytest.raises(CommandError, match=r"ana may have 1 run\(s\) at once; stop 'Watch' first") as refused:
                await start(children, "ana")
            assert refused.value.code == 409
            await start(children, "bob")
            with pytest.raises(CommandError, match="this server trains 2 runs at once") as refused:
                await start(children, "eve")
            assert refused.value.code == 409
            os.kill(await until(lambda: children.state(first)["pid"]), signal.SIGKILL)
            assert (await until(lambda: children.fate(first)))[0] == "crashed"
            await start(children, "ana")

    asyncio.run(scenario())


def test_one_waits_for_the_gpu_and_starts_when_it_is_free(until):
    async def scenario():
        async with family(WAIT) as children:
            first = await start(children, "ana", device="gpu")
            second = await start(children, "bob", device="gpu")
            assert (first["queue_place"], second["queue_place"]) == (0, 1)
            state = children.state(second["id"])
            assert (state["status"], state["queue"], state["queue_place"], state["pid"]) == ("starting", "GPU", 1, None)
            with pytest.raises(CommandError, match="somebody waits for it already") as refused:
                await start(children, "eve", device="gpu")
            assert refused.value.code == 409
            await start(children, "eve", device="cpu")
            os.kill(await until(lambda: children.state(first["id"])["pid"]), signal.SIGKILL)
            await until(lambda: children.state(second["id"])["pid"])
            assert children.state(second["id"])["queue_place"] == 0

    asyncio.run(scenario())


def test_they_end_with_their_server(until):
    async def scenario():
        async with family(WAIT) as children:
            first = (await start(children, "ana", device="gpu"))["id"]
            second = (await start(children, "bob", device="gpu"))["id"]
            pid = await until(lambda: children.state(first)["pid"])
        assert [children.fate(run) for run in (first, second)] == [("stopped", "the server was shut down")] * 2
        assert not places.is_alive(pid)

    asyncio.run(scenario())


def test_the_oldest_ended_ones_are_forgotten(until, monkeypatch):
    monkeypatch.setattr(childrens, "_KEPT_ENDED", 1)

    async def scenario():
        async with family("") as children:
            runs = []
            for _ in range(3):
                runs.append((await start(children))["id"])
                await until(lambda: children.fate(runs[-1]))
            assert [children.knows(run) for run in runs] == [False, True, True]
            assert children.fate(runs[0]) is None
            assert len(children.states()) == 2

    asyncio.run(scenario())


def test_a_run_that_crashes_before_it_speaks_is_shown_by_the_hub(serve, until):
    command = (sys.executable, "-c", "import time; time.sleep(0.3); raise MemoryError('no room')")

    async def scenario():
        async with serve(caps=Caps(), child_command=command) as server:
            code, answer = await server.ask("/runs", body={"preset": "first_run", "options": {"seed": 4}})
            assert (code, answer["queue_place"]) == (201, 0)
            run = answer["id"]
            state = (await server.ask(f"/runs/{run}"))[1]
            assert (state["status"], state["owner"], state["seed"], state["role"]) == ("starting", "ana", 4, "owner")
            code, answer = await server.ask(f"/runs/{run}/snapshot")
            assert (code, answer["reason"]) == (404, "the run is starting; try again in a second")
            assert (await server.ask("/runs", body={"preset": "first_run"}))[0] == 409
            await until(lambda: server.hub.states()[0]["status"] == "crashed")
            state = (await server.ask(f"/runs/{run}"))[1]
            assert "MemoryError: no room" in state["error"]
            page = await server.watch(f"/runs/{run}/stream")
            assert b"no room" in await page.read_message()
            assert (await server.command(run, "pause"))[0] == 409
            assert (await server.ask("/presets"))[1]["presets"][0]["id"] == "first_run"

    asyncio.run(scenario())


def test_a_run_that_dies_while_it_is_watched_says_its_last_words(folder, until, tmp_path):
    script = __file__.replace("test_children", "fake_runtime")
    code = (
        "import asyncio, importlib.util, json, os, sys\n"
        "from pathlib import Path\n"
        f"spec = importlib.util.spec_from_file_location('fake', {script!r})\n"
        "fake = importlib.util.module_from_spec(spec); spec.loader.exec_module(fake)\n"
        "async def main():\n"
        "    request = json.load(sys.stdin)\n"
        f"    run = fake.FakeRuntime(folder=Path({str(folder)!r}), run_id=request['id'], owner=request['owner'])\n"
        "    await run.start()\n"
        f"    while not Path({str(tmp_path / 'die')!r}).exists():\n"
        "        run.one_step(); await asyncio.sleep(0.05)\n"
        "    print('RuntimeError: the disk is full', file=sys.stderr, flush=True); os._exit(9)\n"
        "asyncio.run(main())"
    )

    async def scenario():
        command = (sys.executable, "-c", code)
        hub = Hub(rules=Rules(owner="ana"), caps=Caps(), folder=folder, scan_seconds=0.05, child_command=command)
        await hub.start()
        run = (await hub.start_run({"preset": "first_run"}, "ana"))["id"]
        await until(lambda: hub.state(run, "ana").get("step", 0) > 2, 30)
        (tmp_path / "die").touch()
        await until(lambda: hub.state(run, "ana")["status"] == "crashed")
        assert "RuntimeError: the disk is full" in hub.state(run, "ana")["error"]
        assert "loss_curves" in hub.link(run, "ana").store.topics
        assert len(hub.states()) == 1
        await hub.stop()

    asyncio.run(scenario())

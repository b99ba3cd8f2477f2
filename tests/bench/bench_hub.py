"""What 60 viewers cost the hub: its processor time, and how long a frame is on its way.

The hub, the run, 59 viewers and the one viewer whose frames are timed are processes of their own: a program that plays
59 browsers is too busy to tell when a message came. The run is invented and publishes 10 times a second what 16 layers
of 64 experts do; every viewer is a WebSocket that reads everything.
"""

import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import psutil
from tornado.websocket import websocket_connect

from workbench.hub.frames import split_frames

VIEWERS, STEPS_PER_SECOND, SECONDS, SETTLE_SECONDS = 60, 10, 20, 3
PORT, TOKEN = 18_437, "token-of-the-bench"
TESTS = Path(__file__).resolve().parent.parent
API = "/workbench/api/v1"


@contextmanager
def process(*command, folder, **options):
    """A process with the connection files of this bench, ended at the end."""
    environment = {**os.environ, "JUPYTER_RUNTIME_DIR": str(folder), "JUPYTER_CONFIG_DIR": str(folder / "config")}
    with subprocess.Popen([sys.executable, *map(str, command)], env=environment, **options) as started:
        try:
            yield started
        finally:
            started.terminate()


def wait_for(url, condition):
    """The JSON of an address, once it is there and as wanted."""
    request = urllib.request.Request(url, headers={"Authorization": f"token {TOKEN}"})
    for _ in range(600):
        try:
            with urllib.request.urlopen(request) as answer:
                found = json.load(answer)
            if condition(found):
                return found
        except OSError:
            pass
        time.sleep(0.1)
    raise TimeoutError(f"{url} did not answer as wanted within a minute")


def measure(server, folder, root):
    """Processor share and memory of the hub, and what its viewers report."""
    script = ("fake_runtime.py", f"--steps-per-second={STEPS_PER_SECOND}", "--layers=16", "--experts=64")
    with process(TESTS / "hub" / script[0], *script[1:], folder=folder, stdout=subprocess.PIPE, text=True) as run:
        run_id = run.stdout.readline().strip()
        api = f"http://127.0.0.1:{PORT}{root}{API}"
        wait_for(f"{api}/runs", lambda found: any((state.get("step") or 0) > 5 for state in found["runs"]))
        stream = f"ws://127.0.0.1:{PORT}{root}{API}/runs/{run_id}/stream?token={TOKEN}"
        hub = psutil.Process(server.pid)
        options = {"folder": folder, "stdout": subprocess.PIPE, "text": True}
        with process(__file__, stream, VIEWERS - 1, **options) as crowd, process(__file__, stream, 1, **options) as one:
            for viewers in (crowd, one):
                viewers.stdout.readline()
            before, began = hub.cpu_times(), time.perf_counter()
            time.sleep(SECONDS)
            after, took = hub.cpu_times(), time.perf_counter() - began
            memory = hub.memory_info().rss
            reports = [json.loads(viewers.stdout.readline()) for viewers in (crowd, one)]
    used = after.user + after.system - before.user - before.system
    return used / took, memory, *reports


def show(name, share, memory, crowd, one):
    milliseconds = sorted(one["milliseconds"])
    p95 = milliseconds[int(0.95 * len(milliseconds))]
    messages = crowd["messages"] / (VIEWERS - 1) / crowd["seconds"]
    print(
        f"\n{name}: {VIEWERS} viewers, {STEPS_PER_SECOND} steps/s, {crowd['bytes'] / crowd['messages'] / 1e3:.1f} kB "
        f"a message, {messages:.1f} messages/s each, {SECONDS} s, {os.cpu_count()} cores, load "
        f"{os.getloadavg()[0]:.1f}"
    )
    print(f"processor time of the hub {share * 100:.1f} % of a core (goal: at most 15 %), {memory / 2**20:.0f} MiB")
    print(
        f"frame produced to received: median {statistics.median(milliseconds):.1f} ms, p95 {p95:.1f} ms, "
        f"longest {milliseconds[-1]:.1f} ms (goal: produced to drawn at most 50 ms p95)"
    )


def bench_hub_on_a_plain_server(tmp_path):
    command = (TESTS / "hub" / "dev_server.py", f"--port={PORT}", f"--token={TOKEN}")
    with process(*command, folder=tmp_path, stdout=subprocess.DEVNULL) as server:
        wait_for(f"http://127.0.0.1:{PORT}{API}/health", lambda found: found["ok"])
        show("plain tornado", *measure(server, tmp_path, ""))


def bench_hub_in_a_jupyter_server(tmp_path):
    config = tmp_path / "config" / "jupyter_server_config.d"
    config.mkdir(parents=True)
    shipped = TESTS.parent / "workbench" / "lab" / "jupyter-config" / "moe-workbench.json"
    (config / shipped.name).write_text(shipped.read_text())
    command = [
        "-m",
        "jupyter_server",
        f"--port={PORT}",
        "--no-browser",
        "--allow-root",
        f"--IdentityProvider.token={TOKEN}",
    ]
    command += ["--ServerApp.base_url=/user/ana/", f"--ServerApp.root_dir={tmp_path}"]
    with process(*command, folder=tmp_path, stderr=subprocess.DEVNULL) as server:
        wait_for(f"http://127.0.0.1:{PORT}/user/ana{API}/health", lambda found: found["ok"])
        show("inside jupyter_server", *measure(server, tmp_path, "/user/ana"))


async def view(url, number):
    """Viewers that read everything; says when they have settled, and later what they saw."""
    delays, counted = [], {"messages": 0, "bytes": 0}

    async def read(page):
        while (message := await page.read_message()) is not None:
            now = time.time()
            newest = max(frame.time for frame, _ in split_frames(message))
            counted["messages"] += 1
            counted["bytes"] += len(message)
            delays.append((now - newest) * 1e3)

    pages = [await websocket_connect(url, max_message_size=2**26) for _ in range(number)]
    readers = [asyncio.create_task(read(page)) for page in pages]
    await asyncio.sleep(SETTLE_SECONDS)
    delays.clear()
    counted.update(messages=0, bytes=0)
    began = time.perf_counter()
    print("settled", flush=True)
    await asyncio.sleep(SECONDS)
    print(json.dumps({**counted, "seconds": time.perf_counter() - began, "milliseconds": delays}), flush=True)
    for reader in readers:
        reader.cancel()
    for page in pages:
        page.close()


if __name__ == "__main__":
    asyncio.run(view(sys.argv[1], int(sys.argv[2])))

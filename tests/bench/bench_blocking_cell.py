"""How soon a press acts while a cell trains, on every ipykernel that people have: goal, paused within 200 ms.

Each version is installed into a folder of its own and put before the others; what is measured is the time from sending
the command over the run's socket to hearing that it stands still, which includes the rest of the step.
"""

import os
import subprocess
import sys
import time
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from statistics import median

VERSIONS = ("6.31.0", "7.3.0", "7.4.0")
PRESSES = 20
CELL = """
from workbench.session import Session
session = Session(model="tiny", batch_size=4, sequence_length=64, seed=0)
for report in session.train(100_000, progress=False):
    pass
"""
STAND = """
import os, sys
from jupyter_client.manager import start_new_kernel
manager, client = start_new_kernel(startup_timeout=120)
client.execute("import ipykernel; print(ipykernel.__version__)")
while True:
    message = client.get_iopub_msg(timeout=60)
    if message["msg_type"] == "stream":
        print(message["content"]["text"].strip(), flush=True)
        break
client.execute(sys.argv[1])
sys.stdin.read()
manager.shutdown_kernel(now=True)
"""


def bench_a_press_while_a_cell_blocks(tmp_path, monkeypatch):
    spec = spec_from_file_location("caller", Path(__file__).parent.parent / "live" / "caller.py")
    caller_module = module_from_spec(spec)
    spec.loader.exec_module(caller_module)
    for version in VERSIONS:
        folder = tmp_path / version
        install = (
            sys.executable,
            "-m",
            "pip",
            "install",
            "-q",
            "--no-deps",
            "--target",
            folder,
            f"ipykernel=={version}",
        )
        subprocess.run(install, check=True)
        monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(folder / "runtime"))
        print(f"\n{presses(caller_module.Caller, folder)}")


def presses(caller_of, folder):
    # one thread, as a run on a shared server has; two would fight the kernel's own threads for the same cores.
    env = {**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
    stand = subprocess.Popen(
        [sys.executable, "-c", STAND, CELL], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env, text=True
    )
    try:
        version = stand.stdout.readline().strip()
        while not list((folder / "runtime" / "workbench").glob("*.json")):
            time.sleep(0.05)
        caller = caller_of()
        caller.hear(lambda me: me.store.state.get("step", 0) > 5)
        acks, paused = [], []
        for turn in range(PRESSES):
            began = time.perf_counter()
            caller.ask("pause", id=f"pause-{turn}")
            acks.append(time.perf_counter() - began)
            caller.hear(lambda me: me.store.state["status"] == "paused")
            paused.append(time.perf_counter() - began)
            at = caller.store.state["step"]
            caller.ask("resume", id=f"resume-{turn}")
            caller.hear(lambda me, at=at: me.store.state["step"] > at + 1)
        step_ms = 256_000 / caller.store.state["tokens_per_second"]
        caller.close()
    finally:
        stand.communicate(timeout=30)
    return (
        f"ipykernel {version}, tiny, 4 x 64 tokens, one thread, a step takes {step_ms:.0f} ms: acknowledged after "
        f"{median(acks) * 1000:.0f} ms median, {p95(acks):.0f} ms p95 (goal 100), paused after "
        f"{median(paused) * 1000:.0f} ms median, {p95(paused):.0f} ms p95 (goal 200) of {PRESSES}"
    )


def p95(seconds):
    return sorted(seconds)[int(0.95 * len(seconds))] * 1000

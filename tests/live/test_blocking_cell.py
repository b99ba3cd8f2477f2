"""Commands reach a run while the cell that trains keeps its kernel busy."""

import os
import time

import pytest
from jupyter_client.manager import start_new_kernel

CELL = """
from workbench.session import Session
session = Session(model="tiny", batch_size=1, sequence_length=16, seed=0)
for report in session.train(100_000, progress=False):
    pass
print(session.live.status, session.trainer.step)
"""


@pytest.fixture
def kernel(runtime_folder):
    manager, client = start_new_kernel(startup_timeout=120, env={**os.environ, "OMP_NUM_THREADS": "1"})
    yield client
    client.stop_channels()
    manager.shutdown_kernel(now=True)


@pytest.mark.slow
def test_a_press_in_a_busy_kernel_acts_at_the_next_step(kernel, runtime_folder, until, caller_of):
    asked = kernel.execute(CELL)
    until(lambda: list(runtime_folder.glob("*.json")), seconds=120)
    caller = caller_of()
    assert caller.hear(lambda me: me.store.state.get("step", 0) > 3)
    seconds = []
    for turn in range(5):
        pressed = time.monotonic()
        assert caller.ask("pause", id=f"pause-{turn}")["status"] == "accepted"
        assert caller.hear(lambda me: me.store.state["status"] == "paused")
        seconds.append(time.monotonic() - pressed)
        at = caller.store.state["step"]
        time.sleep(0.1)
        assert caller.ask("resume", id=f"resume-{turn}")["status"] == "accepted"
        assert caller.hear(lambda me, at=at: me.store.state["step"] > at)
    assert sorted(seconds)[2] < 0.2, seconds
    assert caller.ask("stop", id="stop")["status"] == "accepted"
    replies = iter(lambda: kernel.get_shell_msg(timeout=30), None)
    # the start asks who the kernel is, on a busy machine more than once.
    reply = next(one for one in replies if one["parent_header"]["msg_id"] == asked)
    assert reply["content"]["status"] == "ok", reply["content"]

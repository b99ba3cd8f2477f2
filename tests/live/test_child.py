"""A run in a process of its own."""

import json
import os
import signal
import subprocess
import sys

import pytest

from workbench.hub.lessons import LESSONS
from workbench.hub.places import connection_files, new_run_id
from workbench.live.child import build
from workbench.trace.files import open_trace
from workbench.train.run_folder import RunFolder


def request(**options):
    complete = LESSONS["first_run"].complete({"batch_size": 1, "sequence_length": 16, **options})
    caps = {"threads": 1, "memory_bytes": 2**33, "seconds": 60}
    return {
        "id": new_run_id(),
        "preset": "first_run",
        "title": "A run",
        "owner": "ana",
        "options": complete,
        "caps": caps,
    }


def test_it_builds_what_was_asked_for(tmp_path):
    run = build(request(router="switch", balance=0.5, shadow="top_k", seed=3), folder=tmp_path / "run")
    try:
        assert (run.kind, run.owner, run.title) == ("child", "ana", "A run")
        assert run.trainer.model.config.router.name == "switch"
        assert run.trainer.config.aux_weights == {"balance": 0.5} and run.trainer.config.seed == 3
        assert run.state()["shadow"] == "top_k" and run.trainer.watch is not None
        assert "router='switch'" in run.code
    finally:
        run.trainer.close()


def test_an_unknown_router_is_an_error_before_anything_is_written(tmp_path):
    with pytest.raises(LookupError, match="no_such"):
        build(request(router="no_such"), folder=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_child_trains_answers_and_ends_when_it_is_told(tmp_path, until):
    env = {**os.environ, "XDG_DATA_HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}
    child = subprocess.Popen(
        [sys.executable, "-m", "workbench", "child"],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=env,
        text=True,
    )
    asked = request(steps=3)
    child.stdin.write(json.dumps(asked))
    child.stdin.close()
    until(lambda: connection_files() or child.poll() is not None, seconds=60)
    assert child.poll() is None, child.stderr.read()
    folder = tmp_path / "moe-workbench" / "runs" / f"first_run-{asked['id'][:8]}"
    until(lambda: (folder / "checkpoints" / "step_00000003").exists(), seconds=60)
    child.send_signal(signal.SIGTERM)
    assert child.wait(30) == 0, child.stderr.read()
    child.stderr.close()
    assert connection_files() == []
    assert RunFolder(folder).newest().name == "step_00000003"
    assert open_trace(RunFolder(folder).trace)["run"]["step"].values.tolist() == [1, 2, 3]

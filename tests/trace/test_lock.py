"""One writer at a time."""

import os
import socket
import subprocess
import sys

import pytest

from workbench.trace.lock import WriterLock


def test_the_lock_is_free_again_after_release(tmp_path):
    lock = WriterLock(tmp_path / "lock")
    with pytest.raises(BlockingIOError, match=f"is being written by process {os.getpid()} on"):
        WriterLock(tmp_path / "lock")
    lock.release()
    lock.release()
    assert not (tmp_path / "lock").exists()
    WriterLock(tmp_path / "lock").release()


def test_the_lock_of_a_dead_process_is_taken_over(tmp_path):
    code = "import sys, os; from pathlib import Path; from workbench.trace.lock import WriterLock;"
    code += " WriterLock(Path(sys.argv[1])); os._exit(9)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    run = subprocess.run([sys.executable, "-c", code, str(tmp_path / "lock")], env=environment, check=False)
    assert run.returncode == 9
    assert (tmp_path / "lock").exists()
    WriterLock(tmp_path / "lock").release()


def test_a_child_that_outlives_its_writer_does_not_keep_the_lock(tmp_path):
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        gone.wait()
    orphan = WriterLock(tmp_path / "lock")
    # what a forked data loader leaves: the lock is held, and its owner is dead.
    (tmp_path / "lock").write_text(f"process {gone.pid} on {socket.gethostname()}\n")
    WriterLock(tmp_path / "lock").release()
    orphan.release()


def test_an_owner_on_another_machine_is_not_judged(tmp_path):
    lock = WriterLock(tmp_path / "lock")
    (tmp_path / "lock").write_text("process 1 on elsewhere\n")
    with pytest.raises(BlockingIOError, match="is being written by process 1 on elsewhere; stop that run first"):
        WriterLock(tmp_path / "lock")
    lock.release()

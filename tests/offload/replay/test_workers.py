"""Runs on all cores: everything once, in its place, and a clean end where somebody interrupts."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass

import pytest

from workbench.offload.replay.workers import Run, run_all
from workbench.offload.requests import Requests

SOURCES = (Requests.of_sets([[0, 1], [2]]), Requests.of_sets([[0]]))


@dataclass(frozen=True)
class Counted(Run[int]):
    """How many requests there are."""

    source: int
    cells: int
    is_compiled: bool

    @property
    def size(self) -> int:
        return self.cells

    def found_in(self, requests: Requests) -> int:
        return len(requests)


@pytest.mark.parametrize("jobs", [1, 2])
def test_every_run_happens_once_on_its_source(jobs):
    # a run of a test cannot go to another process: whole sweeps send theirs.
    runs = [Counted(place % 2, 1 + place, jobs > 1 or place < 3) for place in range(5)]
    heard = []
    found = dict(run_all(SOURCES, runs, jobs=jobs, on_progress=lambda done, total: heard.append((done, total))))
    assert found == {0: 3, 1: 1, 2: 3, 3: 1, 4: 3}
    assert heard[-1] == (15, 15) and [done for done, _ in heard] == sorted({done for done, _ in heard})


ENDLESS = """
import os
import sys
import time
from dataclasses import dataclass
from workbench.offload.replay.workers import Run, run_all
from workbench.offload.requests import Requests

@dataclass(frozen=True)
class Endless(Run[int]):
    source: int = 0
    is_compiled: bool = False

    @property
    def size(self):
        return 1

    def found_in(self, requests):
        # one call: the lines of two processes must not mix.
        os.write(1, b"at work\\n")
        time.sleep(1000)

if __name__ == "__main__":
    try:
        list(run_all((Requests.of_sets([[0]]),), [Endless()] * 4, jobs=2, on_progress=None))
    except KeyboardInterrupt:
        sys.exit(130)
"""


def test_an_interrupt_ends_every_process_without_a_word(tmp_path):
    script = tmp_path / "endless.py"
    script.write_text(ENDLESS)
    # a group of its own, as a terminal gives one to a command.
    process = subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout is not None
    assert [process.stdout.readline() for _ in range(2)] == ["at work\n"] * 2
    began = time.monotonic()
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert time.monotonic() - began < 60
    assert said == ""

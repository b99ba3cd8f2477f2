"""What it costs a training to be watched: goal under 1 % of a step.

Rounds of steps that are watched, with every view open, are interleaved with rounds that are not. What publishing takes
is read from the CPU clocks of the thread that trains and of the thread that makes views, because a difference of that
size drowns in the noise between steps.
"""

import statistics
import time
from itertools import pairwise
from pathlib import Path

from workbench.session import Session

STEPS = 10
VIEWS = ("token_strip", "expert_flow", "shadow_router", "residency", "offload_timeline")
SETUPS = (("tiny", 8, 128, 6), ("small", 16, 256, 2))


def bench_publishing(tmp_path, monkeypatch):
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path))
    for model, batch, length, rounds in SETUPS:
        with Session(model=model, batch_size=batch, sequence_length=length, seed=0) as session:
            print(f"\n{model}, {batch} x {length} tokens, cpu: {measure(session, rounds)}")


def measure(session, rounds):
    seconds, publishing, views, watched_wall = {True: [], False: []}, 0.0, 0.0, 0.0
    clock = timed(session.live)
    for _ in session.train(3, progress=False):
        pass
    for turn in range(2 * rounds):
        is_watched = turn % 2 == 1
        if is_watched:
            session.live.open().watch("bench", VIEWS)
            feed = session.live.outlet._feed._thread.native_id
            before = clock[0], cpu_seconds(feed)
        marks = [time.perf_counter()]
        marks += [time.perf_counter() for _ in session.train(STEPS, progress=False)]
        seconds[is_watched] += [end - start for start, end in pairwise(marks)]
        if is_watched:
            session.live.outlet.settle()
            publishing, views = publishing + clock[0] - before[0], views + cpu_seconds(feed) - before[1]
            watched_wall += marks[-1] - marks[0]
            session.live.close()
    watched, plain = (statistics.median(seconds[kind]) * 1000 for kind in (True, False))
    shares = f"{publishing / watched_wall:.2%} of the training thread (goal: under 1 %)"
    return (
        f"a step takes {watched:.0f} ms watched and {plain:.0f} ms not watched (medians of {rounds * STEPS}); "
        f"publishing takes {shares}, views {views / watched_wall:.2%} of another core"
    )


def timed(run):
    """CPU seconds that the training thread spends on being watched, counted as it goes on."""
    clock, after = [0.0], run._after

    def measured(report):
        began = time.thread_time()
        after(report)
        clock[0] += time.thread_time() - began

    run._after = measured
    return clock


def cpu_seconds(thread):
    """CPU time of a thread of this process [s]."""
    fields = Path(f"/proc/self/task/{thread}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / 100

"""The store: what is complete survives anything, and nothing is there twice."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import zarr

from workbench.trace import Recorder, Sampling, TraceWriter, open_trace, validate
from workbench.trace.manifest import replace_file

# a run that records until it is killed, and says how far it has come
ENDLESS = """
import itertools, sys, torch
from workbench.core.records import Batch, Output, Site
from workbench.core.sparse import SparseRouting
from workbench.trace import Recorder, Sampling, TraceWriter
expert = torch.tensor([[0, 2], [1, 3]])
routing = SparseRouting.from_topk(expert, torch.full((2, 2), 0.5), num_experts=4, prob=torch.full((2, 4), 0.25))
site = Site(layer=0, iteration=0, module="m", router="r", routing=routing)
batch, output = Batch(token_ids=torch.tensor([[5, 6]])), Output(logits=torch.zeros(1, 2, 1), sites=(site,))
recorder = Recorder(TraceWriter(sys.argv[1]), sampling=Sampling(train_every=1), block_steps=8)
for step in itertools.count(1):
    recorder.add(batch, output, phase="train", step=step)
    if step % 8 == 1:
        print(step, flush=True)
"""


def recorded(forward, report, path, steps, *, resume_after=None, fold=None):
    """A recorder that has taken these steps, in blocks of 8, and is still open."""
    writer = TraceWriter(path, resume_after=resume_after)
    recorder = Recorder(writer, sampling=Sampling(train_every=1), attrs={"created_at": "now"}, block_steps=8)
    passes = [forward(seed=seed) for seed in range(3)]
    for step in steps:
        recorder.add(*passes[step % 3], phase="train", step=step, report=report(step))
        if fold and step % fold == 0:
            recorder.flush()
            writer.fold()
    return recorder


def test_a_run_killed_at_once_opens_up_to_its_last_complete_block_and_goes_on(tmp_path, forward):
    path = tmp_path / "a.zarr"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    command = [sys.executable, "-c", ENDLESS, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as run:
        assert run.stdout is not None
        printed = 0
        while printed < 8 * 40:
            printed = int(run.stdout.readline())
        with pytest.raises(BlockingIOError, match=f"is being written by process {run.pid} on "):
            TraceWriter(path, resume_after=0)
        run.send_signal(signal.SIGKILL)
        run.wait()
        last = [int(line) for line in run.stdout.read().split()]
    trace = open_trace(path)
    assert validate(trace) == []
    steps = trace["load"]["step"].values
    np.testing.assert_array_equal(steps, np.arange(1, len(steps) + 1))
    assert len(steps) % 8 == 0
    # the block before the last one announced is complete; the kill may come after one more.
    assert len(steps) >= max([printed, *last]) - 1
    with TraceWriter(path, resume_after=100) as writer:
        assert writer.path == path
    assert open_trace(path)["load"]["step"].values.tolist() == list(range(1, 101))


def test_a_closed_store_opens_with_plain_xarray(tmp_path, forward, report):
    recorder = recorded(forward, report, tmp_path / "a.zarr", range(1, 21))
    recorder.close()
    with xr.open_datatree(tmp_path / "a.zarr", engine="zarr", chunks=None) as plain:
        xr.testing.assert_identical(plain.load(), open_trace(tmp_path / "a.zarr").load())
        assert plain["load"]["load"].dims == ("step", "layer", "expert")
        assert plain["run"]["loss"].sel(step=2).item() == 2.5
    assert {path.name for path in (tmp_path / "a.zarr").iterdir()} == {"zarr.json", "run", "routing", "load"}


def test_folding_often_or_never_gives_the_same_trace(tmp_path, forward, report):
    traces = []
    for name, fold in (("often.zarr", 5), ("never.zarr", None)):
        recorder = recorded(forward, report, tmp_path / name, range(1, 21), fold=fold)
        live = open_trace(tmp_path / name).load() if fold else None
        recorder.close()
        traces.append(open_trace(tmp_path / name).load())
        if live is not None:
            xr.testing.assert_identical(live, traces[-1])
    xr.testing.assert_identical(*traces)


def test_a_resumed_run_leaves_the_trace_of_an_uninterrupted_one(tmp_path, forward, report):
    recorded(forward, report, tmp_path / "whole.zarr", range(1, 31)).close()
    recorded(forward, report, tmp_path / "parts.zarr", range(1, 26)).close()
    recorded(forward, report, tmp_path / "parts.zarr", range(11, 31), resume_after=10).close()
    whole, parts = (open_trace(tmp_path / name).load() for name in ("whole.zarr", "parts.zarr"))
    assert parts["run"]["step"].values.tolist() == list(range(1, 31))
    xr.testing.assert_identical(whole, parts)


def test_what_is_dropped_on_resume_does_not_come_back_when_arrays_grow(tmp_path, forward, report):
    path = tmp_path / "a.zarr"
    first = Recorder(TraceWriter(path), sampling=Sampling(train_every=1, prob=True))
    for step in range(1, 11):
        first.add(*forward(experts=6, top_k=3, seed=step), phase="train", step=step, report=report(step))
    first.close()
    second = Recorder(TraceWriter(path, resume_after=5), sampling=Sampling(train_every=1))
    for step in range(6, 13):
        plain = report(step, aux_losses={}, aux_weights={})
        second.add(*forward(experts=4, top_k=1, seed=step), phase="train", step=step, report=plain)
    second.close()
    trace = open_trace(path)
    assert validate(trace) == []
    late = trace["routing"]["step"].values > 5
    assert np.isnan(trace["routing"]["prob"].values[:, late]).all()
    assert (trace["routing"]["expert"].values[:, late][..., 1:] == -1).all()
    assert np.isnan(trace["run"]["aux_loss"].values[5:]).all()
    assert np.isnan(trace["load"]["load"].values[5:, :, 4:]).all()
    assert "; after step 5: " in trace["routing"].attrs["sampling"]


@pytest.mark.parametrize("dies_at", [2, 25, 60])
def test_a_write_that_dies_anywhere_leaves_a_prefix_that_can_be_resumed(
    tmp_path, forward, report, monkeypatch, dies_at
):
    path, written, replace = tmp_path / "a.zarr", 0, Path.replace
    recorder = recorded(forward, report, path, range(1, 5), fold=2)

    def dying(self, target):
        nonlocal written
        written += 1
        if written >= dies_at:
            raise OSError(errno.EIO, "the machine is gone")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", dying)
    with pytest.raises(OSError, match="the machine is gone"):
        for step in range(5, 40):
            recorder.add(*forward(columns=2, experts=5, top_k=3), phase="train", step=step, report=report(step))
            recorder.flush()
            if step % 3 == 0:
                recorder._writer.fold()
    monkeypatch.undo()
    recorder._writer._lock.release()
    found = open_trace(path)
    assert validate(found) == []
    steps = found["run"]["step"].values.tolist()
    assert steps == list(range(1, len(steps) + 1))
    assert len(steps) >= 4
    recorded(forward, report, path, range(4, 7), resume_after=3).close()
    after = open_trace(path)
    assert validate(after) == []
    assert after["run"]["step"].values.tolist() == list(range(1, 7))


@pytest.mark.parametrize("dies_at", range(1, 40, 3))
def test_a_first_fold_that_dies_between_two_arrays_leaves_nothing_that_the_next_one_trips_over(
    tmp_path, forward, report, monkeypatch, dies_at
):
    path, create, created = tmp_path / "a.zarr", zarr.Group.create_array, []
    recorder = recorded(forward, report, path, range(1, 4))
    recorder.flush()

    def dying(self, *arguments, **options):
        created.append(arguments)
        if len(created) >= dies_at:
            raise OSError(errno.EIO, "the machine is gone")
        return create(self, *arguments, **options)

    monkeypatch.setattr(zarr.Group, "create_array", dying)
    with pytest.raises(OSError, match="the machine is gone"):
        recorder._writer.fold()
    monkeypatch.undo()
    recorder._writer._lock.release()
    recorded(forward, report, path, range(4, 6), resume_after=3).close()
    found = open_trace(path)
    assert validate(found) == []
    assert found["run"]["step"].values.tolist() == [1, 2, 3, 4, 5]


def test_a_full_disk_is_said_and_costs_nothing_that_was_written(tmp_path, forward, report, monkeypatch):
    path = tmp_path / "a.zarr"
    recorder = recorded(forward, report, path, range(1, 5), fold=2)
    write = Path.write_bytes

    def full(self, data):
        write(self, bytes(data)[: len(data) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    recorder.add(*forward(), phase="train", step=5, report=report(5))
    with pytest.raises(OSError, match=r"the disk of .*a\.zarr is full; what was written before is intact") as caught:
        recorder.flush()
    assert caught.value.errno == errno.ENOSPC
    assert open_trace(path)["run"].sizes["step"] == 4
    monkeypatch.undo()
    recorder.close()
    assert open_trace(path)["run"]["step"].values.tolist() == list(range(1, 6))


def test_a_second_writer_is_refused(tmp_path):
    with TraceWriter(tmp_path / "a.zarr"):
        with pytest.raises(
            BlockingIOError, match=rf"a\.zarr is being written by process {os.getpid()} on .* stop that"
        ):
            TraceWriter(tmp_path / "a.zarr", resume_after=0)
    TraceWriter(tmp_path / "a.zarr", resume_after=0).close()


def test_a_trace_is_not_overwritten_by_accident(tmp_path):
    TraceWriter(tmp_path / "a.zarr").close()
    with pytest.raises(FileExistsError, match=r"holds a trace already; go on with it by resume_after=STEP"):
        TraceWriter(tmp_path / "a.zarr")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").touch()
    with pytest.raises(ValueError, match=r"full holds 'thesis\.tex' and no trace; give a new or an empty folder"):
        TraceWriter(tmp_path / "full")
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["thesis.tex"]
    with pytest.raises(FileExistsError, match=r"thesis\.tex is a file; give a folder for the trace"):
        TraceWriter(tmp_path / "full" / "thesis.tex")


def test_a_closed_writer_takes_nothing(tmp_path):
    writer = TraceWriter(tmp_path / "a.zarr")
    writer.close()
    writer.close()
    with pytest.raises(ValueError, match=r"the writer of .*a\.zarr is closed; open a new one with resume_after="):
        writer.append({})


def test_generations_are_numbered_on_after_a_resume(tmp_path, forward):
    for resume_after in (None, 0):
        with Recorder(TraceWriter(tmp_path / "a.zarr", resume_after=resume_after)) as recorder:
            recorder.add(*forward(rows=2, columns=1), phase="prefill", step=0)
    assert open_trace(tmp_path / "a.zarr")["routing"]["sequence"].values.tolist() == [0, 1, 2, 3]


def test_replacing_a_file_leaves_no_part_behind(tmp_path, monkeypatch):
    replace_file(tmp_path / "f", b"old")
    monkeypatch.setattr(Path, "replace", lambda self, target: (_ for _ in ()).throw(OSError("no")))
    with pytest.raises(OSError, match="no"):
        replace_file(tmp_path / "f", b"new")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("f", b"old")]

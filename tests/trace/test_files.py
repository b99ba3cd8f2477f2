"""Traces as files."""

import errno

import pytest
import xarray as xr
import zarr

from workbench.core.records import CacheEvent, ControlEvent, ExpertKey
from workbench.trace import Recorder, Sampling, TraceWriter, open_trace, save_trace

ENDINGS = [".zarr.zip", ".nc", ".zarr"]


@pytest.fixture
def trace(forward, report):
    """Every group a recorder writes, and attributes of every plain kind."""
    attrs = {"model": "tiny ü", "seed": 3, "rate": 0.5, "synthetic": True, "empty": "", "one": [1], "words": ["a", "b"]}
    recorder = Recorder(sampling=Sampling(prob=True), attrs=attrs, decode_piece=lambda token: f"ü{token}" * (token % 3))
    event = ControlEvent(op="pause", args={}, time_ns=1, actor="", accepted_step=1, applied_step=1, result="ok")
    miss = CacheEvent(time_ns=7, step=1, token=0, key=ExpertKey(1, 3), kind="miss", bytes=64, stall_seconds=0.5)
    recorder.add(*forward(), phase="train", step=1, report=report(1, bits_per_byte={"code": 2.0}), events=[event, miss])
    recorder.add(*forward(columns=4, experts=6, top_k=3), phase="prefill", step=1)
    return recorder.trace()


@pytest.mark.parametrize("ending", ENDINGS)
def test_every_group_and_attribute_comes_back(trace, tmp_path, ending):
    path = save_trace(trace, tmp_path / "deep" / f"t{ending}")
    again = open_trace(path)
    xr.testing.assert_identical(again.load(), trace)
    assert again.attrs == trace.attrs
    assert {type(value) for value in again.attrs.values()} == {str, int, float, bool, list}
    assert [found.name for found in path.parent.iterdir()] == [path.name]


def test_netcdf_opens_elsewhere(trace, tmp_path):
    with xr.open_datatree(save_trace(trace, tmp_path / "t.nc"), engine="h5netcdf") as plain:
        assert plain["routing"]["piece"].values.tolist() == trace["routing"]["piece"].values.tolist()
        assert plain["run"]["loss"].attrs["units"] == "nat/token"


@pytest.mark.parametrize("ending", [".zarr.zip", ".nc"])
def test_a_failed_save_leaves_the_old_file(trace, tmp_path, ending, monkeypatch):
    path = save_trace(trace, tmp_path / f"t{ending}")
    before = path.read_bytes()

    def full(self, target):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(type(path), "replace", full)
    with pytest.raises(OSError, match=r"the disk of .*t\..* is full; what was written before is intact"):
        save_trace(trace, path)
    assert path.read_bytes() == before
    assert [found.name for found in tmp_path.iterdir()] == [path.name]


def test_a_trace_that_is_not_valid_is_not_saved(trace, tmp_path):
    broken = trace.copy(deep=True)
    broken["load"]["load"].values[:] = 2.0
    with pytest.raises(ValueError, match="the trace is not valid:\n  /load/load: must sum to 1"):
        save_trace(broken, tmp_path / "t.nc")
    assert list(tmp_path.iterdir()) == []


def test_an_ending_that_means_nothing_is_refused(trace, tmp_path):
    with pytest.raises(ValueError, match=r"a trace is saved as \.zarr\.zip, \.nc, \.zarr; got 't\.csv'"):
        save_trace(trace, tmp_path / "t.csv")
    (tmp_path / "t.zarr").mkdir()
    with pytest.raises(FileExistsError, match=r"t\.zarr exists and is a folder"):
        save_trace(trace, tmp_path / "t.zarr")


def test_nothing_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no trace at .*missing\.zarr"):
        open_trace(tmp_path / "missing.zarr")


@pytest.mark.parametrize("name", ["t.zarr.zip", "t.nc", "notes.txt"])
def test_a_file_that_is_something_else_is_refused(tmp_path, name):
    (tmp_path / name).write_text("hello")
    with pytest.raises(ValueError, match=rf"{name} is not a (zipped trace|netCDF file), or it is damaged"):
        open_trace(tmp_path / name)


@pytest.mark.parametrize("ending", [".zarr.zip", ".nc"])
def test_a_file_cut_short_is_refused(trace, tmp_path, ending):
    path = save_trace(trace, tmp_path / f"t{ending}")
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(ValueError, match="damaged"):
        open_trace(path)


def test_another_schema_and_another_store_are_told_apart(tmp_path):
    TraceWriter(tmp_path / "a.zarr").close()
    text = (tmp_path / "a.zarr" / "zarr.json").read_text()
    (tmp_path / "a.zarr" / "zarr.json").write_text(text.replace("moe-workbench.trace/1", "moe-workbench.trace/2"))
    with pytest.raises(
        ValueError, match=r"has schema 'moe-workbench\.trace/2', this version reads 'moe-workbench\.trace/1'"
    ):
        open_trace(tmp_path / "a.zarr")
    (tmp_path / "b").mkdir()
    with pytest.raises(ValueError, match=r"has no zarr\.json"):
        open_trace(tmp_path / "b")
    zarr.create_group(tmp_path / "c.zarr")
    with pytest.raises(ValueError, match="is not the root of a trace"):
        open_trace(tmp_path / "c.zarr")


def test_a_live_store_shows_its_blocks_and_its_words(tmp_path, forward):
    recorder = Recorder(TraceWriter(tmp_path / "a.zarr"))
    assert list(open_trace(tmp_path / "a.zarr").children) == []
    recorder.add(*forward(), phase="prefill", step=0)
    recorder.flush()
    trace = open_trace(tmp_path / "a.zarr")
    assert trace["routing"].sizes["token"] == 3
    assert "prefill and decode: every token" in trace.moe.sampling
    assert "folded_blocks" not in trace.attrs
    recorder.close()

"""The trace as one file: what is on disk, no links, and a reason where there is nothing."""

import zipfile

import pytest

from workbench.hub import archive
from workbench.hub.archive import zipped_trace
from workbench.hub.schema import CommandError


def trace(folder, **files):
    for name, data in files.items():
        path = folder / "trace.zarr" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def test_the_files_of_the_trace_are_in_it(tmp_path):
    trace(tmp_path, **{"zarr.json": b"{}", "run/loss/c0": b"123"})
    with zipped_trace(str(tmp_path)) as file:
        found = zipfile.ZipFile(file)
        assert sorted(found.namelist()) == ["run/loss/c0", "zarr.json"]
        assert found.read("run/loss/c0") == b"123"


def test_links_lead_nowhere(tmp_path):
    (tmp_path / "secret").write_bytes(b"secret")
    trace(tmp_path, a=b"1")
    (tmp_path / "trace.zarr" / "b").symlink_to(tmp_path / "secret")
    with zipped_trace(str(tmp_path)) as file:
        assert zipfile.ZipFile(file).namelist() == ["a"]
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "trace.zarr").symlink_to(tmp_path / "trace.zarr")
    with pytest.raises(CommandError, match="has not written its trace yet"):
        zipped_trace(str(tmp_path / "other"))


@pytest.mark.parametrize("folder", [None, "", 7])
def test_a_run_in_memory_has_no_file(folder):
    with pytest.raises(CommandError, match="keeps its trace in memory") as refused:
        zipped_trace(folder)
    assert refused.value.code == 404


def test_a_trace_that_is_too_large_is_not_sent(tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "LARGEST_TRACE_BYTES", 10)
    trace(tmp_path, a=bytes(11))
    with pytest.raises(CommandError, match="larger than 10 bytes") as refused:
        zipped_trace(str(tmp_path))
    assert refused.value.code == 413

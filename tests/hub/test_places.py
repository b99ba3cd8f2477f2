"""Connection files are private, complete or absent, and say nothing that somebody else wrote."""

import json
import os
import stat
import tempfile
from pathlib import Path

import pytest
from jupyter_core.paths import jupyter_runtime_dir

from workbench.hub import places
from workbench.hub.places import Connection


def connection(folder: Path, **changes) -> Connection:
    run_id = places.new_run_id()
    fields = {"id": run_id, "socket": str(folder / "x.sock"), "secret": "s", "pid": os.getpid(), "title": "a run"}
    return Connection(**{**fields, "owner": "ana", "started_at": 1.0, **changes})


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_folder_is_where_jupyter_keeps_its_connection_files(monkeypatch, tmp_path):
    for name in ("JUPYTER_RUNTIME_DIR", "JUPYTER_DATA_DIR", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    assert places.runtime_dir() == Path(jupyter_runtime_dir()) / "workbench"
    for name in ("XDG_DATA_HOME", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name))
        assert places.runtime_dir() == Path(jupyter_runtime_dir()) / "workbench"


def test_a_connection_comes_back_as_it_was_written(tmp_path):
    folder = tmp_path / "runtime" / "workbench"
    written = connection(tmp_path)
    path = places.write_connection(written, folder)
    assert places.read_connection(path) == written
    assert places.connection_files(folder) == [path]
    assert (mode(folder), mode(path)) == (0o700, 0o600)
    assert json.loads(path.read_text())["version"] == 1


def test_the_mode_of_the_folder_does_not_depend_on_the_umask(tmp_path):
    before = os.umask(0)
    try:
        path = places.write_connection(connection(tmp_path), tmp_path / "open")
    finally:
        os.umask(before)
    assert (mode(path.parent), mode(path)) == (0o700, 0o600)


def test_a_file_that_others_can_read_is_not_believed(tmp_path):
    path = places.write_connection(connection(tmp_path), tmp_path)
    path.chmod(0o640)
    assert places.read_connection(path) is None


def test_a_link_is_not_followed(tmp_path):
    target = places.write_connection(connection(tmp_path), tmp_path / "a")
    link = tmp_path / target.name
    link.symlink_to(target)
    assert places.read_connection(link) is None


@pytest.mark.parametrize("text", ["", "[]", "{", '{"version": 1}', "[" * 10_000])
def test_a_file_without_a_connection_is_not_believed(tmp_path, text):
    path = places.write_connection(connection(tmp_path), tmp_path)
    path.write_text(text)
    assert places.read_connection(path) is None


@pytest.mark.parametrize(
    "changes",
    [{"version": 2}, {"pid": "1"}, {"pid": 0}, {"pid": -1}, {"socket": "a"}, {"id": "0" * 32}, {"secret": None}],
)
def test_a_file_that_says_something_else_is_not_believed(tmp_path, changes):
    path = places.write_connection(connection(tmp_path), tmp_path)
    assert places.read_connection(path) is not None
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    assert places.read_connection(path) is None


def test_a_removed_file_is_gone_with_its_socket(tmp_path):
    one = connection(tmp_path)
    path = places.write_connection(one, tmp_path)
    Path(one.socket).touch()
    places.remove_connection(one, tmp_path)
    places.remove_connection(one, tmp_path)
    assert not path.exists()
    assert not Path(one.socket).exists()
    assert places.read_connection(path) is None


def test_a_long_folder_gets_a_short_socket(tmp_path):
    folder = tmp_path / ("long" * 30)
    path = places.socket_path(places.new_run_id(), folder)
    assert len(os.fsencode(path)) < 104
    assert mode(path.parent) == 0o700
    one = connection(tmp_path, socket=str(path))
    path.touch()
    places.remove_connection(one, folder)
    assert not path.parent.exists()


def test_a_short_folder_holds_its_sockets():
    with tempfile.TemporaryDirectory() as name:
        assert places.socket_path(places.new_run_id(), Path(name)).parent == Path(name)


@pytest.mark.parametrize("text", ["", "..", "a" * 31, "A" * 32, "/" * 32, "g" * 32, "a" * 33, "%2e%2e" + "a" * 26])
def test_only_our_names_are_run_ids(text):
    assert not places.is_run_id(text)
    assert places.is_run_id(places.new_run_id())


def test_a_dead_process_is_told_from_a_live_one():
    assert places.is_alive(os.getpid())
    assert places.is_alive(1)
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    assert not places.is_alive(child)

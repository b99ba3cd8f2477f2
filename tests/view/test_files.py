"""A page is written whole, or what was there stays."""

import pytest

from workbench.view.files import write_whole


def test_a_file_is_replaced_and_readable_by_others(tmp_path):
    path = tmp_path / "a.html"
    write_whole(path, "old")
    write_whole(path, "new ü")
    assert path.read_text("utf-8") == "new ü"
    assert path.stat().st_mode & 0o777 == 0o644
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "a.html"
    write_whole(path, "old")

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("workbench.view.files.os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_whole(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]

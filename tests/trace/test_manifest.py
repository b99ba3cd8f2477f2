"""The root metadata is the record of what a store holds."""

import pytest
import zarr

from workbench.trace.manifest import commit, committed_attrs, committed_sizes


@pytest.fixture
def store(tmp_path):
    commit(tmp_path, {"schema": "x"})
    root = zarr.open_group(tmp_path, mode="r+", use_consolidated=False)
    array = root.create_group("run").create_array(
        "loss", shape=(5,), chunks=(4,), dtype="f8", dimension_names=("step",)
    )
    array[:] = 1.0
    return tmp_path


def test_what_is_not_committed_is_not_there(store):
    assert committed_sizes(store) == {}
    assert "run" not in zarr.open_consolidated(store)


def test_arrays_are_committed_at_their_size_or_at_a_smaller_one(store):
    commit(store, {"schema": "y"})
    assert committed_sizes(store) == {"run": {"step": 5}}
    commit(store, {"schema": "y"}, {"run": {"step": 3}})
    assert committed_sizes(store) == {"run": {"step": 3}}
    assert zarr.open_consolidated(store)["run/loss"].shape == (3,)
    assert committed_attrs(store) == {"schema": "y"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"has no zarr\.json; it is not a trace, or it is damaged"),
        (b'{"zarr_', r"zarr\.json is damaged: "),
        (b'{"zarr_format": 3}', r"zarr\.json is not the root of a trace"),
    ],
)
def test_a_damaged_root_is_named(tmp_path, content, message):
    if content is not None:
        (tmp_path / "zarr.json").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        committed_attrs(tmp_path)

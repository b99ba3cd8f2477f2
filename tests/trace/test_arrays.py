"""Blocks in zarr arrays."""

import numpy as np
import zarr

from workbench.trace.arrays import append_columns, trim_group
from workbench.trace.schema import TEXT


def group():
    return zarr.create_group(zarr.storage.MemoryStore())


def columns(first, rows, experts, value):
    return {
        "step": np.arange(first, first + rows),
        "phase": np.array(["train"] * rows, dtype=TEXT),
        "load": np.full((rows, 1, experts), value, dtype=np.float32),
    }


def test_arrays_grow_along_every_dimension():
    node = group()
    append_columns(node, "load", columns(1, 2, 2, 0.5))
    append_columns(node, "load", columns(3, 1, 4, 0.25))
    assert node["load"].metadata.dimension_names == ("step", "layer", "expert")
    assert node["expert"][:].tolist() == [0, 1, 2, 3]
    nan = np.nan
    np.testing.assert_array_equal(node["load"][:, 0], [[0.5, 0.5, nan, nan]] * 2 + [[0.25] * 4])
    assert node["phase"][:].tolist() == ["train"] * 3


def test_what_is_trimmed_reads_as_nothing_when_the_array_grows_again():
    node = group()
    append_columns(node, "load", columns(1, 5, 4, 0.25))
    trim_group(node, "load", {"step": 2, "layer": 1, "expert": 2})
    assert node["load"].shape == (2, 1, 2)
    node["load"].resize((5, 1, 4))
    np.testing.assert_array_equal(node["load"][:, 0, 0], [0.25, 0.25, np.nan, np.nan, np.nan])
    assert np.isnan(node["load"][:, 0, 2:]).all()


def test_chunks_are_bounded_in_rows_and_in_size():
    node = group()
    append_columns(node, "load", columns(1, 1, 64, 0.5))
    assert node["load"].chunks == (4096, 1, 64)
    assert node["step"].chunks == (16384,)

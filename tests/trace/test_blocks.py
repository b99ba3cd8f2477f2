"""Blocks join along time and widen along everything else."""

import numpy as np
import xarray as xr

from workbench.trace.blocks import axes_of, cut, expand, from_trace, join, to_trace
from workbench.trace.schema import GROUPS, SCHEMA, TEXT


def run_block(first, rows, **labelled):
    columns = {"step": np.arange(first, first + rows), "loss": np.arange(rows, dtype=np.float64)}
    for domain, value in labelled.items():
        columns |= {"domain": np.array([domain], dtype=TEXT), "eval_loss": np.full((rows, 1), value)}
    return {"run": columns}


def test_labels_are_joined_in_order_of_appearance_and_the_rest_is_nan():
    joined = join([run_block(1, 2), run_block(3, 1, prose=2.0), run_block(4, 1, code=3.0)])["run"]
    nan = np.nan
    assert joined["step"].tolist() == [1, 2, 3, 4]
    assert joined["domain"].tolist() == ["prose", "code"]
    np.testing.assert_array_equal(joined["eval_loss"], [[nan, nan], [nan, nan], [2, nan], [nan, 3]])


def test_counted_dimensions_take_the_largest_size():
    blocks = [{"load": {"step": np.array([s]), "load": np.full((1, 1, n), 1 / n)}} for s, n in ((1, 2), (2, 3))]
    joined = join(blocks)["load"]
    assert joined["expert"].tolist() == [0, 1, 2]
    np.testing.assert_array_equal(joined["load"], [[[0.5, 0.5, np.nan]], [[1 / 3, 1 / 3, 1 / 3]]])


def test_joining_in_any_grouping_gives_the_same():
    blocks = [run_block(1, 2), run_block(3, 1, prose=2.0), run_block(4, 2, code=3.0)]
    at_once, in_turn = join(blocks), join([join(blocks[:2]), blocks[2]])
    xr.testing.assert_identical(to_trace(at_once, {}), to_trace(in_turn, {}))


def test_expanding_to_its_own_axes_changes_nothing():
    columns = run_block(1, 2, prose=1.0)["run"]
    group = GROUPS["run"]
    wide = expand(group, columns, axes_of(group, [columns]))
    assert {key: array.tolist() for key, array in wide.items()} == {key: a.tolist() for key, a in columns.items()}


def test_cut_drops_the_first_later_row_and_all_behind_it():
    block = {"control": {"applied_step": np.array([1, 5, 2]), "op": np.array(["a", "b", "c"], dtype=TEXT)}}
    assert cut(block, 4)["control"]["op"].tolist() == ["a"]
    assert cut(block, 5)["control"]["op"].tolist() == ["a", "b", "c"]
    assert cut(block, 0) == {}


def test_cut_keeps_the_coordinates_of_other_dimensions():
    short = cut(run_block(1, 3, prose=1.0), 2)["run"]
    assert short["domain"].tolist() == ["prose"]
    assert short["eval_loss"].shape == (2, 1)


def test_a_placement_that_is_written_again_replaces_the_first():
    blocks = [{"placement": {"rank": np.full((1, 2), rank, dtype=np.int32)}} for rank in (0, 3)]
    assert join(blocks)["placement"]["rank"].tolist() == [[3, 3]]


def test_there_and_back():
    block, attrs = run_block(1, 2, prose=1.0), {"": {"schema": SCHEMA}, "run": {"note": "x"}}
    again, kept = from_trace(to_trace(block, attrs))
    assert kept == attrs
    assert {key: array.tolist() for key, array in again["run"].items()} == {
        key: array.tolist() for key, array in block["run"].items()
    }

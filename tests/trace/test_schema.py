"""The schema as data."""

import numpy as np
import pytest

from workbench.trace.checks import validate
from workbench.trace.schema import GROUPS, SCHEMA, Trace, empty_group, empty_trace, safe_text


def test_every_dimension_of_a_group_is_appended_labelled_or_counted():
    for name, group in GROUPS.items():
        assert set(group.dims) == {*group.labels, *group.ordinals, *([group.append] if group.append else [])}, name


def test_no_measured_variable_has_the_name_of_a_dimension():
    for name, group in GROUPS.items():
        measured = {key for key, variable in group.variables.items() if not variable.is_coordinate}
        assert not measured & set(group.dims), name


def test_every_measured_number_has_units_or_is_an_index_or_a_truth_value():
    bare = {
        f"{name}/{key}"
        for name, group in GROUPS.items()
        for key, variable in group.variables.items()
        if not variable.is_coordinate and not variable.units and variable.numpy_dtype.kind == "f"
    }
    assert bare == set()


@pytest.mark.parametrize("name", GROUPS)
def test_an_empty_group_is_valid(name):
    trace = Trace.from_dict({"/": empty_trace().to_dataset(), f"/{name}": empty_group(name)})
    assert validate(trace) == []


def test_an_empty_trace_only_names_its_schema():
    assert dict(empty_trace().attrs) == {"schema": SCHEMA}


def test_an_unknown_group_is_refused_with_those_that_exist():
    with pytest.raises(LookupError, match=r"no group 'routings'; its groups: run, routing, load,"):
        empty_group("routings")


@pytest.mark.parametrize(("dtype", "filler"), [("int16", -1), ("bool", False), ("str", "")])
def test_nothing_recorded_reads_as_minus_one_false_or_empty(dtype, filler):
    found = next(v for group in GROUPS.values() for v in group.variables.values() if v.dtype == dtype)
    assert found.filler == filler
    assert np.isnan(GROUPS["load"].variables["load"].filler)
    assert GROUPS["routing"].variables["weight"].filler == 0


def test_safe_text_keeps_what_can_be_kept():
    assert safe_text("a ü 漢\n") == "a ü 漢\n"
    assert safe_text("a\0b\udc80") == "a␀b?"

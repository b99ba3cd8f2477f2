"""What is wrong with a trace, and where."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from workbench.core.check import did_you_mean
from workbench.trace.schema import GROUPS, SCHEMA, Group, Trace, Variable

__all__ = ["Problem", "plain_attrs", "require_schema", "require_valid", "validate"]

_SUM_TOLERANCE = 1e-4  # float32 shares of up to thousands of experts


@dataclass(frozen=True)
class Problem:
    """One fault of a trace.

    Args:
        where: path of the group or of the variable.
        what: what was expected and what was found.
    """

    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


def validate(trace: Trace) -> list[Problem]:
    """Everything that departs from the schema; empty for a valid trace."""
    problems = list(_root(trace))
    for name, node in trace.children.items():
        if name not in GROUPS:
            problems.append(
                Problem(f"/{name}", f"no such group{did_you_mean(name, GROUPS)}; known: {', '.join(GROUPS)}")
            )
            continue
        shape = list(_shape(name, GROUPS[name], node.to_dataset(inherit=False)))
        # values are read only in a group whose form is right: a wrong dimension would hide behind odd values.
        problems += shape or list(_values(name, node.to_dataset(inherit=False)))
    return problems


def require_valid(trace: Trace) -> None:
    """Nothing, for a valid trace.

    Raises:
        ValueError: it is not; the message lists the first faults.
    """
    problems = validate(trace)
    if problems:
        more = f"\n  and {len(problems) - 10} more" if len(problems) > 10 else ""
        listed = "\n  ".join(str(problem) for problem in problems[:10])
        raise ValueError(f"the trace is not valid:\n  {listed}{more}")


def require_schema(attrs: Mapping[Any, Any], origin: str) -> None:
    """Nothing, if these are the attributes of a trace that this version reads.

    Raises:
        ValueError: another schema, or none at all.
    """
    schema = attrs.get("schema")
    if schema == SCHEMA:
        return
    if isinstance(schema, str) and schema.startswith(SCHEMA.partition("/")[0]):
        raise ValueError(
            f"{origin} has schema {schema!r}, this version reads {SCHEMA!r}; open it with the other version"
        )
    raise ValueError(f"{origin} is not a trace: expected the attribute schema={SCHEMA!r}, got {schema!r}")


def plain_attrs(attrs: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of attributes that every format can hold.

    Raises:
        TypeError: a value is not text, a number, a truth value, or a list of those.
    """
    for key, value in attrs.items():
        if not _is_plain(value):
            raise TypeError(
                f"attribute {key!r} must be text, a number, a truth value or a list of those, "
                f"got {type(value).__name__}; give a mapping as JSON text"
            )
    return dict(attrs)


def _is_plain(value: object) -> bool:
    simple = (str, int, float, bool)
    return isinstance(value, simple) or (isinstance(value, list) and all(isinstance(item, simple) for item in value))


def _root(trace: Trace) -> Iterator[Problem]:
    if trace.attrs.get("schema") != SCHEMA:
        yield Problem("/", f"attribute schema must be {SCHEMA!r}, got {trace.attrs.get('schema')!r}")
    for path, attrs in [("/", trace.attrs), *((f"/{name}", node.attrs) for name, node in trace.children.items())]:
        for key, value in attrs.items():
            if not _is_plain(value):
                yield Problem(path, f"attribute {key!r} must be plain, got {type(value).__name__}")


def _shape(name: str, group: Group, data: xr.Dataset) -> Iterator[Problem]:
    for key in group.needs:
        if key not in data.attrs:
            yield Problem(f"/{name}", f"attribute {key!r} is missing")
    for key, variable in group.variables.items():
        if variable.is_required and key not in data.variables:
            yield Problem(f"/{name}/{key}", "is missing")
    for found, array in data.variables.items():
        key, where = str(found), f"/{name}/{found}"
        if key not in group.variables:
            yield Problem(where, f"no such variable{did_you_mean(key, group.variables)}")
            continue
        yield from _form(where, group.variables[key], array)
        if group.variables[key].is_coordinate != (key in data.coords):
            yield Problem(where, "must be a coordinate" if key not in data.coords else "must not be a coordinate")


def _form(where: str, variable: Variable, array: xr.Variable) -> Iterator[Problem]:
    if array.dims != variable.dims:
        yield Problem(where, f"dimensions must be {variable.dims}, got {array.dims}")
    wanted, kind = variable.numpy_dtype.kind, array.dtype.kind
    if kind != wanted:
        yield Problem(where, f"dtype must be {variable.dtype}, got {array.dtype}")
    if variable.units and array.attrs.get("units") != variable.units:
        yield Problem(where, f"units must be {variable.units!r}, got {array.attrs.get('units')!r}")


def _values(name: str, data: xr.Dataset) -> Iterator[Problem]:
    for key, variable in GROUPS[name].variables.items():
        if variable.among and key in data.variables:
            strange = sorted(set(np.unique(data[key].values).tolist()) - set(variable.among))
            if strange:
                yield Problem(f"/{name}/{key}", f"must be one of {', '.join(variable.among)}; got {strange[0]!r}")
    clock = GROUPS[name].clock
    if clock and name != "control":
        steps = data[clock].values
        back = np.flatnonzero(np.diff(steps) < (1 if name == "run" else 0))
        if back.size:
            row = int(back[0]) + 1
            yield Problem(f"/{name}/{clock}", f"goes from {steps[row - 1]} to {steps[row]} at row {row}")
    for dim in GROUPS[name].ordinals:
        if dim in data.coords and data[dim].values.tolist() != list(range(data.sizes[dim])):
            yield Problem(f"/{name}/{dim}", f"must count from 0, got {data[dim].values.tolist()}")
    checks = {"routing": _routing, "load": _load, "offload": _offload, "control": _control}
    if name in checks:
        yield from (Problem(f"/{name}/{key}", what) for key, what in checks[name](data))


def _routing(data: xr.Dataset) -> Iterator[tuple[str, str]]:
    expert, kept = data["expert"].values, data["kept"].values
    limit = data["num_experts"].values[:, None, None]
    if (wrong := (expert < -1) | (expert >= limit)).any():
        site, token, slot = np.argwhere(wrong)[0]
        found = f"{expert[site, token, slot]} at site {site}, token {token}, slot {slot}"
        yield "expert", f"must be -1 or below num_experts={limit[site, 0, 0]}, got {found}"
    if (wrong := kept & (expert < 0)).any():
        yield "kept", f"is True in {int(wrong.sum())} empty slots"
    if (wrong := (expert >= 0).any(-1) & ~data["is_routed"].values).any():
        yield "is_routed", f"is False for {int(wrong.sum())} tokens that have experts"
    weight = data["weight"].values
    if (wrong := (expert < 0) & (weight != 0)).any():
        yield "weight", f"must be 0 where the slot is empty; {int(wrong.sum())} are not"
    # dumps of other runtimes hold the choices only: then no weight is known, and NaN says so.
    is_unknown = np.isnan(weight[expert >= 0]).all()
    if not is_unknown and not np.isfinite(weight).all():
        yield "weight", f"must be finite; {int((~np.isfinite(weight)).sum())} are not"
    for key in ("sequence", "position", "token_id", "layer", "iteration"):
        if (data[key].values < 0).any():
            yield key, f"must not be negative, got {int(data[key].values.min())}"
    if "prob" in data and (data["prob"].values < 0).any():
        yield "prob", "must not be negative"


def _load(data: xr.Dataset) -> Iterator[tuple[str, str]]:
    load = data["load"].values
    total = np.nansum(load, -1)
    wrong = (np.abs(total - 1) > _SUM_TOLERANCE) & ~np.isnan(load).all(-1)
    if wrong.any():
        row, layer = np.argwhere(wrong)[0]
        where = f"step {int(data['step'].values[row])}, layer {layer}"
        yield "load", f"must sum to 1 over experts, sums to {total[row, layer]:.4f} at {where}"
    for key in ("load", "dead_fraction", "dropped_fraction", "prob_mean"):
        values = data[key].values
        if ((values < -_SUM_TOLERANCE) | (values > 1 + _SUM_TOLERANCE)).any():
            yield key, f"must be between 0 and 1, got {np.nanmin(values)} to {np.nanmax(values)}"
    for key in ("entropy", "cv"):
        if (data[key].values < -_SUM_TOLERANCE).any():
            yield key, f"must not be negative, got {np.nanmin(data[key].values)}"


def _offload(data: xr.Dataset) -> Iterator[tuple[str, str]]:
    for key in ("bytes", "stall_seconds", "layer", "expert"):
        if (data[key].values < 0).any():
            yield key, f"must not be negative, got {data[key].values.min()}"


def _control(data: xr.Dataset) -> Iterator[tuple[str, str]]:
    for row, text in enumerate(data["args_json"].values.tolist()):
        try:
            json.loads(text)
        except ValueError as error:
            yield "args_json", f"row {row} is not JSON: {error}"

"""Blocks: a piece of a trace as plain arrays, and how pieces join.

A block maps group -> variable -> array, with the dimensions of the schema. It holds rows of the
appended dimension of each group; the other dimensions may be narrower than those of its neighbours.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

import workbench.trace.accessor  # noqa: F401  a trace that exists has its accessor
from workbench.trace.schema import GROUPS, Group, Trace, Variable

__all__ = ["Attrs", "Axes", "Block", "Columns", "axes_of", "cut", "expand", "from_trace", "join", "rows_of", "to_trace"]

Columns = dict[str, npt.NDArray[Any]]
Block = dict[str, Columns]
Attrs = dict[str, dict[str, Any]]
"""Attributes by group; those of the trace itself under the empty name."""


@dataclass(frozen=True)
class Axes:
    """The dimensions of a group that do not grow with time.

    Args:
        labels: dimension -> the distinct places on it, in order of first appearance.
        sizes: dimension -> its size, for those that count from 0.
    """

    labels: Mapping[str, Sequence[tuple[Any, ...]]]
    sizes: Mapping[str, int]

    def size(self, dim: str) -> int:
        """Places on a dimension."""
        return len(self.labels[dim]) if dim in self.labels else self.sizes[dim]


def axes_of(group: Group, parts: Iterable[Columns]) -> Axes:
    """Axes that have room for every part."""
    pieces = list(parts)
    labels = {
        dim: list(dict.fromkeys(label for columns in pieces for label in _labels(group, columns, dim)))
        for dim in group.labels
    }
    sizes = {dim: max((_size(group, columns, dim) for columns in pieces), default=0) for dim in group.ordinals}
    return Axes(labels, sizes)


def expand(group: Group, columns: Columns, axes: Axes) -> Columns:
    """The columns padded to the axes: -1, NaN, False or empty where they held nothing."""
    own = axes_of(group, [columns])
    places = {dim: _places(own.labels[dim], axes.labels[dim]) for dim in group.labels}
    wide: Columns = {}
    for name, variable in group.variables.items():
        if variable.dims == (name,) and name in group.ordinals:
            wide[name] = np.arange(axes.size(name), dtype=variable.numpy_dtype)
        elif len(variable.dims) == 1 and name in group.labels.get(variable.dims[0], ()):
            if axes.size(variable.dims[0]):
                at = group.labels[variable.dims[0]].index(name)
                values = [label[at] for label in axes.labels[variable.dims[0]]]
                wide[name] = np.array(values, dtype=variable.numpy_dtype)
        elif name in columns:
            wide[name] = _pad(variable, columns[name], axes, places)
    return wide


def join(blocks: Sequence[Block]) -> Block:
    """One block that holds the rows of all, in order."""
    joined: Block = {}
    for name, group in GROUPS.items():
        parts = [block[name] for block in blocks if name in block]
        if not parts:
            continue
        axes = axes_of(group, parts)
        wide = [expand(group, columns, axes) for columns in parts]
        present = [key for key in group.variables if any(key in columns for columns in wide)]
        joined[name] = {key: _stack(group, key, axes, wide) for key in present}
    return joined


def cut(block: Block, after_step: int) -> Block:
    """The block without what happened after a step."""
    short: Block = {}
    for name, columns in block.items():
        group = GROUPS[name]
        rows = rows_of(group, columns, after_step)
        if group.append is None or rows == _size(group, columns, group.append):
            short[name] = columns
        elif rows:
            appended = {key for key in columns if group.append in group.variables[key].dims}
            short[name] = {
                key: array[_along(group.variables[key], group.append, rows)] if key in appended else array
                for key, array in columns.items()
            }
    return short


def rows_of(group: Group, columns: Mapping[str, Any], after_step: int) -> int:
    """Rows before the first one that belongs to a later step."""
    if group.clock is None:
        return 0
    late = np.asarray(columns[group.clock]) > after_step
    return int(late.argmax()) if late.any() else len(late)


def to_trace(block: Block, attrs: Mapping[str, Mapping[str, Any]]) -> Trace:
    """The block as a labelled trace."""
    groups = {"/": xr.Dataset(attrs=dict(attrs.get("", {})))}
    for name, columns in block.items():
        variables = GROUPS[name].variables
        arrays = {key: xr.Variable(variables[key].dims, array, variables[key].attrs) for key, array in columns.items()}
        coords = {key: array for key, array in arrays.items() if variables[key].is_coordinate}
        data = {key: array for key, array in arrays.items() if key not in coords}
        groups[f"/{name}"] = xr.Dataset(data, coords, dict(attrs.get(name, {})))
    return xr.DataTree.from_dict(groups)


def from_trace(trace: Trace) -> tuple[Block, Attrs]:
    """The arrays and the attributes of a trace."""
    block: Block = {}
    attrs: Attrs = {"": _named(trace.attrs)}
    for name, node in trace.children.items():
        variables = GROUPS[name].variables
        block[name] = {
            str(key): np.asarray(array.values).astype(variables[str(key)].numpy_dtype, copy=False)
            for key, array in node.variables.items()
        }
        attrs[name] = _named(node.attrs)
    return block, attrs


def _named(attrs: Mapping[Any, Any]) -> dict[str, Any]:
    return {str(key): value for key, value in attrs.items()}


def _labels(group: Group, columns: Columns, dim: str) -> list[tuple[Any, ...]]:
    names = group.labels[dim]
    if names[0] not in columns:
        return []
    return list(zip(*(columns[name].tolist() for name in names), strict=True))


def _size(group: Group, columns: Columns, dim: str) -> int:
    for name, variable in group.variables.items():
        if dim in variable.dims and name in columns:
            return int(columns[name].shape[variable.dims.index(dim)])
    return 0


def _places(own: Sequence[tuple[Any, ...]], all_labels: Sequence[tuple[Any, ...]]) -> npt.NDArray[Any]:
    index = {label: place for place, label in enumerate(all_labels)}
    return np.array([index[label] for label in own], dtype=np.intp)


def _pad(
    variable: Variable, array: npt.NDArray[Any], axes: Axes, places: Mapping[str, npt.NDArray[Any]]
) -> npt.NDArray[Any]:
    known = {*axes.labels, *axes.sizes}
    shape = tuple(
        axes.size(dim) if dim in known else size for dim, size in zip(variable.dims, array.shape, strict=True)
    )
    moved = any(not np.array_equal(places[dim], np.arange(axes.size(dim))) for dim in variable.dims if dim in places)
    if shape == array.shape and not moved:
        return array
    wide = np.full(shape, variable.filler, dtype=array.dtype)
    where = zip(variable.dims, array.shape, strict=True)
    wide[tuple(places[dim] if dim in places else slice(size) for dim, size in where)] = array
    return wide


def _stack(group: Group, name: str, axes: Axes, parts: Sequence[Columns]) -> npt.NDArray[Any]:
    variable = group.variables[name]
    if group.append not in variable.dims:
        return next(columns[name] for columns in reversed(parts) if name in columns)
    pieces = []
    for columns in parts:
        if name in columns:
            pieces.append(columns[name])
            continue
        rows = _size(group, columns, group.append)
        shape = tuple(rows if dim == group.append else axes.size(dim) for dim in variable.dims)
        pieces.append(np.full(shape, variable.filler, dtype=variable.numpy_dtype))
    return pieces[0] if len(pieces) == 1 else np.concatenate(pieces, axis=variable.dims.index(group.append))


def _along(variable: Variable, dim: str, stop: int) -> tuple[slice, ...]:
    return tuple(slice(stop) if name == dim else slice(None) for name in variable.dims)

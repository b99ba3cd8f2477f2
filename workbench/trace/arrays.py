"""Blocks in zarr arrays: one array per variable, with named dimensions, that grows at its end."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr

from workbench.trace.blocks import Axes, Columns, axes_of, expand
from workbench.trace.schema import GROUPS, Group, Variable

__all__ = ["append_columns", "trim_group"]

_CHUNK_ELEMENTS = 1 << 18
_CHUNK_ROWS = 1 << 14


def append_columns(node: zarr.Group, name: str, columns: Columns) -> None:
    """Write the rows of a block behind those that the group already holds."""
    group = GROUPS[name]
    held = {key: array for key, array in node.arrays()}
    known: Columns = {key: np.asarray(array[...]) for key, array in held.items() if _is_axis(group, key)}
    before = _sizes(group, held)
    axes = _grown(group, before, axes_of(group, [known, columns]))
    wide = expand(group, columns, axes)
    start = before.get(group.append or "", 0)
    rows = next((len(wide[key]) for key in wide if group.append and group.variables[key].dims[0] == group.append), 0)
    for key in group.variables:
        if key in wide or key in held:
            variable = group.variables[key]
            shape = tuple(start + rows if d == group.append else axes.size(d) for d in variable.dims)
            array = _sized(node, held.get(key), key, variable, shape, group.append)
            if key in wide:
                _write(array, variable, group.append, start, wide[key])


def _sizes(group: Group, arrays: Mapping[str, Any]) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for key, array in arrays.items():
        sizes |= dict(zip(group.variables[key].dims, array.shape, strict=True))
    return sizes


def trim_group(node: zarr.Group, name: str, sizes: dict[str, int]) -> None:
    """Shrink every array to the sizes, and leave nothing behind that a later growth would uncover.

    Without sizes the group holds nothing yet: arrays that are there were left by a first write that died, perhaps
    between two that belong together.
    """
    for key, array in list(node.arrays()):
        if not sizes:
            del node[key]
            continue
        variable = GROUPS[name].variables[key]
        shape = tuple(min(sizes.get(dim, 0), size) for dim, size in zip(variable.dims, array.shape, strict=True))
        if shape == array.shape:
            continue
        for axis, size in enumerate(shape):
            # zarr keeps the rest of a chunk that is cut in two.
            edge = min(-(-size // array.chunks[axis]) * array.chunks[axis], array.shape[axis])
            if edge > size:
                region = tuple(slice(size, edge) if i == axis else slice(None) for i in range(len(shape)))
                array[region] = variable.filler
        array.resize(shape)


def _is_axis(group: Group, key: str) -> bool:
    return any(key in names for names in group.labels.values())


def _grown(group: Group, before: dict[str, int], axes: Axes) -> Axes:
    return Axes(axes.labels, {dim: max(axes.sizes[dim], before.get(dim, 0)) for dim in group.ordinals})


def _sized(
    node: zarr.Group,
    array: zarr.Array[Any] | None,
    key: str,
    variable: Variable,
    shape: tuple[int, ...],
    append: str | None,
) -> zarr.Array[Any]:
    if array is None:
        return node.create_array(
            key,
            shape=shape,
            chunks=_chunks(variable, shape, append),
            dtype=variable.numpy_dtype,
            fill_value=variable.filler,
            dimension_names=variable.dims,
            attributes={**variable.attrs},
        )
    if array.shape != shape:
        array.resize(shape)
    return array


def _chunks(variable: Variable, shape: tuple[int, ...], append: str | None) -> tuple[int, ...]:
    fixed = [max(size, 1) for dim, size in zip(variable.dims, shape, strict=True) if dim != append]
    rows = _CHUNK_ELEMENTS // int(np.prod(fixed, dtype=np.int64))
    rows = min(max(1 << max(rows, 1).bit_length() - 1, 64), _CHUNK_ROWS)
    return tuple(rows if dim == append else max(size, 1) for dim, size in zip(variable.dims, shape, strict=True))


def _write(
    array: zarr.Array[Any], variable: Variable, append: str | None, start: int, values: npt.NDArray[Any]
) -> None:
    region = tuple(
        slice(start, start + size) if dim == append else slice(size)
        for dim, size in zip(variable.dims, values.shape, strict=True)
    )
    if values.size:
        array[region] = values

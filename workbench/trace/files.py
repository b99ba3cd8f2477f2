"""Traces as files: opening, and saving in one piece."""

import json
import os
import shutil
import zipfile
from pathlib import Path
from typing import Any

import xarray as xr
import zarr

from workbench.trace.blocks import from_trace, join, to_trace
from workbench.trace.checks import require_schema, require_valid
from workbench.trace.journal import Journal
from workbench.trace.manifest import committed_attrs
from workbench.trace.schema import TEXT, Trace
from workbench.trace.store import FOLDED, TraceWriter, disk_errors, write_groups

__all__ = ["open_trace", "save_trace"]

_ZIP, _NETCDF, _FOLDER = ".zarr.zip", ".nc", ".zarr"
_JSON_ATTRS = "json_attrs"


def open_trace(path: str | os.PathLike[str]) -> Trace:
    """The trace in a zarr folder, a `.zarr.zip` or a `.nc` file.

    A closed folder is read as it is used; everything else is read at once. A folder that is being written, or
    whose run was killed, opens up to its last complete block; open it again to see more.

    Raises:
        FileNotFoundError: there is nothing at this path.
        ValueError: it is damaged, no trace, or of another schema.
    """
    place = Path(path)
    if not place.exists():
        raise FileNotFoundError(f"there is no trace at {place}")
    if place.is_dir():
        return _open_folder(place)
    return _open_netcdf(place) if place.name.endswith(_NETCDF) else _open_zip(place)


def save_trace(trace: Trace, path: str | os.PathLike[str]) -> Path:
    """Write a whole trace beside its place and rename it: `.zarr.zip`, `.nc`, or a `.zarr` folder.

    A file is replaced; a folder must not exist.

    Returns:
        The path.

    Raises:
        ValueError: another ending, or a trace that is not valid.
        FileExistsError: the folder exists.
        OSError: the disk is full; a file that was there is still there.
    """
    place = Path(path)
    savers = {_ZIP: _save_zip, _NETCDF: _save_netcdf, _FOLDER: _save_folder}
    ending = next((ending for ending in savers if place.name.endswith(ending)), None)
    if ending is None:
        raise ValueError(f"a trace is saved as {', '.join(savers)}; got {place.name!r}")
    if place.is_dir():
        raise FileExistsError(f"{place} exists and is a folder; give a path that is free")
    require_valid(trace)
    place.parent.mkdir(parents=True, exist_ok=True)
    beside = place.with_name(f".{os.getpid()}.part.{place.name}")
    try:
        with disk_errors(place):
            savers[ending](trace, beside)
            beside.replace(place)
    finally:
        if beside.is_dir():
            shutil.rmtree(beside)
        beside.unlink(missing_ok=True)
    return place


def _open_folder(place: Path) -> Trace:
    while True:
        require_schema(committed_attrs(place), str(place))
        with xr.open_datatree(place, engine="zarr", consolidated=True, chunks=None, decode_times=False) as tree:
            folded = tree.attrs.pop(FOLDED, None)
        for name in [name for name, node in tree.children.items() if not node.variables]:
            del tree[name]
        if folded is None:
            return tree
        attrs_of_empty = _group_attrs(place)
        try:
            blocks = Journal(place).read(folded)
        except FileNotFoundError:
            continue
        # the writer folds now and then: what was read fits together only if it did not do so meanwhile.
        if committed_attrs(place).get(FOLDED) == folded:
            block, attrs = from_trace(tree)
            return to_trace(join([block, *blocks]), attrs_of_empty | attrs) if blocks else tree


def _group_attrs(place: Path) -> dict[str, dict[str, Any]]:
    root = zarr.open_group(place, mode="r", use_consolidated=True)
    return {
        name: {key: value for key, value in node.attrs.items() if key != "coordinates"} for name, node in root.groups()
    }


def _open_zip(place: Path) -> Trace:
    if not zipfile.is_zipfile(place):
        raise ValueError(f"{place} is not a zipped trace, or it is damaged: the end of the archive is missing")
    try:
        store = zarr.storage.ZipStore(place, mode="r")
        # xarray takes any zarr store, though its signature names only paths.
        with store, xr.open_datatree(store, engine="zarr", consolidated=False, chunks=None) as tree:  # type: ignore[arg-type]
            require_schema(tree.attrs, str(place))
            return tree.load()
    except (zipfile.BadZipFile, FileNotFoundError) as error:
        raise ValueError(f"{place} is not a zipped trace, or it is damaged: {error}") from error


def _save_zip(trace: Trace, place: Path) -> None:
    block, attrs = from_trace(trace)
    with zarr.storage.ZipStore(place, mode="w") as store:
        write_groups(zarr.create_group(store, attributes=attrs[""]), block, attrs)


def _save_folder(trace: Trace, place: Path) -> None:
    block, attrs = from_trace(trace)
    with TraceWriter(place) as writer:
        writer.describe(attrs)
        writer.append(block)


def _open_netcdf(place: Path) -> Trace:
    try:
        with xr.open_datatree(place, engine="h5netcdf", decode_times=False) as tree:
            plain = tree.map_over_datasets(_from_netcdf)
            require_schema(plain.attrs, str(place))
            return to_trace(*from_trace(plain))
    except OSError as error:
        raise ValueError(f"{place} is not a netCDF file, or it is damaged: {error}") from error


def _save_netcdf(trace: Trace, place: Path) -> None:
    tree = to_trace(*from_trace(trace)).map_over_datasets(_as_netcdf)
    encoding = {
        node.path: {str(key): _encoding(array) for key, array in node.variables.items()} for node in tree.subtree
    }
    # made in memory: on a full disk the HDF5 library brings the interpreter down.
    place.write_bytes(tree.to_netcdf(None, engine="h5netcdf", encoding=encoding))


def _encoding(array: xr.Variable) -> dict[str, Any]:
    packed = {"zlib": True} if array.size else {}
    # text as padded characters packs well; as netCDF strings it took forty times the space.
    return {"dtype": "S1", **packed} if array.dtype.kind == "O" else {"_FillValue": None, **packed}


def _as_netcdf(data: xr.Dataset) -> xr.Dataset:
    texts = {key: array.astype(object) for key, array in data.variables.items() if array.dtype == TEXT}
    # netCDF attributes know text and numbers; a list of one comes back as its element, a truth value not at all.
    simple = {key: value for key, value in data.attrs.items() if type(value) in (str, int, float) and value != ""}
    rest = {key: value for key, value in data.attrs.items() if key not in simple}
    changed = data.assign(texts)
    changed.attrs = {**simple, _JSON_ATTRS: json.dumps(rest)} if rest else simple
    return changed


def _from_netcdf(data: xr.Dataset) -> xr.Dataset:
    attrs = {key: value if isinstance(value, str) else value.item() for key, value in data.attrs.items()}
    changed = data.copy(deep=False)
    changed.attrs = attrs | json.loads(attrs.pop(_JSON_ATTRS, "{}"))
    return changed

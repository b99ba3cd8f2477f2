"""The root metadata of a store: its attributes, and those of every array it holds for certain.

It is written in one piece, in the inline consolidated form that zarr reads. A reader that goes by it never sees
an array that is longer than the others because a write is under way or was killed.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from workbench.trace.schema import GROUPS

__all__ = ["Sizes", "commit", "committed_attrs", "committed_sizes", "replace_file"]

Sizes = dict[str, dict[str, int]]
"""Group -> dimension -> size."""


def commit(folder: Path, attrs: Mapping[str, Any], sizes: Sizes | None = None) -> None:
    """Make what the arrays hold now the content of the store, or only the part within the sizes."""
    metadata: dict[str, Any] = {}
    for name in GROUPS:
        if not (folder / name / "zarr.json").exists() or (sizes is not None and name not in sizes):
            continue
        metadata[name] = _read(folder / name)
        for path in sorted((folder / name).glob("*/zarr.json")):
            metadata[f"{name}/{path.parent.name}"] = array = _read(path.parent)
            if sizes is not None:
                array["shape"] = [sizes[name].get(dim, 0) for dim in array["dimension_names"]]
    root = {
        "zarr_format": 3,
        "node_type": "group",
        "attributes": dict(attrs),
        "consolidated_metadata": {"kind": "inline", "must_understand": False, "metadata": metadata},
    }
    replace_file(folder / "zarr.json", json.dumps(root).encode())


def committed_attrs(folder: Path) -> dict[str, Any]:
    """Attributes of the store.

    Raises:
        ValueError: the root is missing or damaged.
    """
    attrs: dict[str, Any] = _root(folder)["attributes"]
    return attrs


def committed_sizes(folder: Path) -> Sizes:
    """Sizes of every group of the store."""
    sizes: Sizes = {}
    for path, node in _root(folder)["consolidated_metadata"]["metadata"].items():
        group = path.partition("/")[0]
        if node["node_type"] == "array":
            sizes.setdefault(group, {}).update(zip(node["dimension_names"], node["shape"], strict=True))
        else:
            sizes.setdefault(group, {})
    return sizes


def replace_file(path: Path, data: bytes | memoryview) -> None:
    """Write a file beside its place and rename it, so that it is there whole or not at all."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        beside.write_bytes(data)
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def _root(folder: Path) -> dict[str, Any]:
    root = _read(folder)
    if "attributes" not in root or "consolidated_metadata" not in root:
        raise ValueError(f"{folder / 'zarr.json'} is not the root of a trace")
    return root


def _read(folder: Path) -> dict[str, Any]:
    try:
        node: dict[str, Any] = json.loads((folder / "zarr.json").read_bytes())
    except FileNotFoundError as error:
        raise ValueError(f"{folder} has no zarr.json; it is not a trace, or it is damaged") from error
    except ValueError as error:
        raise ValueError(f"{folder / 'zarr.json'} is damaged: {error}") from error
    return node

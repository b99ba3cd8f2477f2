"""The bytes that a view reads: header and numbers in one value.

Hosts do not update several traits at once, so a header and its arrays must travel together. Layout, little-endian:
`MOEV`, uint32 version, uint32 header bytes, uint32 zero, header (JSON, UTF-8), then every array at a multiple of 8.
"""

import json
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["DTYPES", "encode", "header_of"]

MAGIC = b"MOEV"
VERSION = 1
DTYPES = frozenset({"int8", "uint8", "int16", "uint16", "int32", "uint32", "float32", "float64"})


def encode(view: str, header: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """The payload of a view.

    Args:
        view: name of the view that reads it.
        header: JSON values; `statements` (sentences printed under the view), `badge` (a word beside the title, for
            what was not measured) and `empty` (why there is nothing to show) are added when missing. Numbers that may
            be NaN belong in an array.
        arrays: name -> numbers; dtype and NaN are kept as they are.

    Raises:
        ValueError: an array has a dtype that browsers have no typed array for, or the header holds NaN.
    """
    chunks: list[bytes] = []
    layout: list[dict[str, Any]] = []
    offset = 0
    for name, array in arrays.items():
        if array.dtype.name not in DTYPES:
            raise ValueError(f"array {name!r} must be one of {', '.join(sorted(DTYPES))}, got {array.dtype.name}")
        data = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
        layout.append({"name": name, "dtype": array.dtype.name, "shape": list(array.shape), "offset": offset})
        chunks.append(data + bytes(-len(data) % 8))
        offset += len(chunks[-1])
    full = {"view": view, "statements": [], "badge": "", "empty": None, **header, "arrays": layout}
    # Escaped to ASCII, so that a token that is half a surrogate pair does not break the encoding.
    text = json.dumps(full, allow_nan=False, separators=(",", ":")).encode("ascii")
    head = MAGIC + struct.pack("<III", VERSION, len(text), 0) + text
    return head + bytes(-len(head) % 8) + b"".join(chunks)


def header_of(payload: bytes) -> dict[str, Any]:
    """The header of a payload, without its numbers.

    Raises:
        ValueError: these bytes are not a payload.
    """
    if payload[:4] != MAGIC:
        raise ValueError(f"a view payload starts with {MAGIC!r}, got {payload[:4]!r}")
    size = struct.unpack_from("<I", payload, 8)[0]
    header: dict[str, Any] = json.loads(payload[16 : 16 + size])
    return header

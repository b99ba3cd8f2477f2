"""Reads a payload by the description of its layout alone; shares no code with the package."""

import json
from typing import Any

import numpy as np

Payload = tuple[dict[str, Any], dict[str, np.ndarray]]


def decode(payload: bytes) -> Payload:
    """Header and arrays of a payload; fails on anything that does not follow the layout."""
    assert payload[:4] == b"MOEV"
    version, size, zero = np.frombuffer(payload, "<u4", 3, offset=4)
    assert (version, zero) == (1, 0)
    header = json.loads(payload[16 : 16 + int(size)].decode("utf-8"), parse_constant=_no_constant)
    base = (16 + int(size) + 7) // 8 * 8
    arrays = {}
    for entry in header["arrays"]:
        assert entry["offset"] % 8 == 0
        dtype = np.dtype(entry["dtype"]).newbyteorder("<")
        count = int(np.prod(entry["shape"], dtype=int))
        arrays[entry["name"]] = np.frombuffer(payload, dtype, count, base + entry["offset"]).reshape(entry["shape"])
    return header, arrays


def _no_constant(name: str) -> None:
    raise AssertionError(f"{name} is not JSON; browsers refuse it")

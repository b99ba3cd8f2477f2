"""JSON that every browser reads: a number that is none becomes null."""

import json
import math
from collections.abc import Mapping
from typing import Any

__all__ = ["plain_json"]


def plain_json(value: Any) -> bytes:
    """The value as JSON; NaN and infinities are null, what JSON does not know is its text."""
    return json.dumps(_plain(value), allow_nan=False, default=str).encode()


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value

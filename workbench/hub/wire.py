"""Messages between a hub and a runtime: uint32 length of the body, little-endian, one type byte, the body."""

import json
import struct
from collections.abc import Iterator, Mapping
from typing import Any, final

__all__ = ["FRAMES", "JSON", "LIMIT_TO_HUB", "LIMIT_TO_RUNTIME", "PREFIX_BYTES", "Inbox", "WireError", "pack", "prefix"]

FRAMES, JSON = b"F", b"J"
"""Types: one or several frames, or a JSON object."""

LIMIT_TO_HUB = 64 * 2**20
LIMIT_TO_RUNTIME = 64 * 1024
PREFIX_BYTES = 5

_PREFIX = struct.Struct("<Ic")


class WireError(ValueError):
    """The other side does not speak this language, or says too much."""


def pack(body: bytes | Mapping[str, Any]) -> bytes:
    """A message: frames when given bytes, JSON when given an object."""
    if isinstance(body, bytes):
        return _PREFIX.pack(len(body), FRAMES) + body
    text = json.dumps(body, allow_nan=False, separators=(",", ":")).encode()
    return _PREFIX.pack(len(text), JSON) + text


def prefix(data: bytes, limit: int) -> tuple[int, bytes]:
    """Length and type of the message that begins with these bytes.

    Raises:
        WireError: an unknown type, or longer than the limit.
    """
    size, kind = _PREFIX.unpack_from(data)
    if kind not in (FRAMES, JSON):
        raise WireError(f"a message is of type F or J, got {kind!r}")
    if size > limit:
        raise WireError(f"a message has at most {limit:,} bytes, got {size:,}")
    return size, kind


@final
class Inbox:
    """Bytes as they arrive, messages as they are complete.

    Args:
        limit: the longest body that is read.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._data = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes | dict[str, Any]]:
        """Every message that these bytes complete: bytes are frames, objects are JSON.

        Raises:
            WireError: an unknown type, too long, or no JSON object.
        """
        self._data += data
        while len(self._data) >= PREFIX_BYTES:
            size, kind = prefix(bytes(self._data[:PREFIX_BYTES]), self._limit)
            if len(self._data) < PREFIX_BYTES + size:
                return
            body = bytes(self._data[PREFIX_BYTES : PREFIX_BYTES + size])
            del self._data[: PREFIX_BYTES + size]
            yield body if kind == FRAMES else _object(body)


def _object(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise WireError(f"a message of type J is JSON, got {body[:40]!r}") from error
    if not isinstance(value, dict):
        raise WireError(f"a message of type J is an object, got {body[:40]!r}")
    return value

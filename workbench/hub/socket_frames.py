"""WebSocket messages of a server, framed once for everybody who gets the same bytes."""

import struct

__all__ = ["binary_message", "text_message"]

_TEXT, _BINARY = 0x81, 0x82  # final frames, opcodes 1 and 2
_SHORT, _MEDIUM = 126, 127


def binary_message(data: bytes) -> bytes:
    """One unmasked binary message (RFC 6455, section 5.2)."""
    return _head(_BINARY, len(data)) + data


def text_message(data: bytes) -> bytes:
    """One unmasked text message of UTF-8."""
    return _head(_TEXT, len(data)) + data


def _head(kind: int, size: int) -> bytes:
    if size < _SHORT:
        return struct.pack("!BB", kind, size)
    if size < 2**16:
        return struct.pack("!BBH", kind, _SHORT, size)
    return struct.pack("!BBQ", kind, _MEDIUM, size)

"""The frame: a topic, its bytes, and where they stand in the history of a run.

Layout, little-endian: 32 bytes of header (`MOEF`, version, kind, uint16 topic bytes, uint32 payload bytes, uint64 seq,
int32 step, float64 seconds since the epoch), the topic in ASCII, zeros up to a multiple of 8, the payload, zeros up to
a multiple of 8. Frames that follow each other are a message.
"""

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["DELTA", "HEADER_BYTES", "LARGEST_PAYLOAD_BYTES", "WHOLE", "Frame", "FrameError", "split_frames"]

DELTA, WHOLE = 0, 1
"""Kinds: rows that follow what came before, and what replaces everything of its topic."""

HEADER_BYTES = 32
LARGEST_PAYLOAD_BYTES = 32 * 2**20

_HEADER = struct.Struct("<4sBBHIQid")
_MAGIC, _VERSION = b"MOEF", 1
_TOPIC = re.compile(r"[a-z][a-z0-9_]{0,63}")


class FrameError(ValueError):
    """These bytes are no frame, or this frame cannot be written."""


@dataclass(frozen=True, kw_only=True)
class Frame:
    """One change of one topic.

    Attributes:
        kind: `DELTA` or `WHOLE`.
        seq: number among all frames of the run, from 1.
        step: training step that it belongs to.
        time: when it was produced [s since the epoch].

    Raises:
        FrameError: a topic, kind, size or number that does not fit the layout.
    """

    topic: str
    payload: bytes
    kind: int
    seq: int
    step: int
    time: float

    def __post_init__(self) -> None:
        if not _TOPIC.fullmatch(self.topic):
            raise FrameError(f"topic must be a lower-case name of at most 64 characters, got {self.topic[:80]!r}")
        if self.kind not in (DELTA, WHOLE):
            raise FrameError(f"kind must be {DELTA} (delta) or {WHOLE} (whole), got {self.kind}")
        if len(self.payload) > LARGEST_PAYLOAD_BYTES:
            raise FrameError(
                f"payload of {self.topic!r} must be at most {LARGEST_PAYLOAD_BYTES:,} bytes, got "
                f"{len(self.payload):,}; publish fewer values"
            )
        if not (0 < self.seq < 2**64 and -(2**31) <= self.step < 2**31):
            raise FrameError(f"seq must be positive and step within 32 bits, got {self.seq} and {self.step}")

    def pack(self) -> bytes:
        """The frame as bytes; their number is a multiple of 8."""
        name = self.topic.encode("ascii")
        head = _HEADER.pack(_MAGIC, _VERSION, self.kind, len(name), len(self.payload), self.seq, self.step, self.time)
        return b"".join((head, name, bytes(-len(name) % 8), self.payload, bytes(-len(self.payload) % 8)))

    @classmethod
    def unpack(cls, data: bytes, offset: int = 0) -> tuple["Frame", int]:
        """The frame that begins at `offset`, and where the next one begins.

        Raises:
            FrameError: no frame begins there, or it is cut off.
        """
        if len(data) - offset < HEADER_BYTES:
            raise FrameError(f"a frame has at least {HEADER_BYTES} bytes, got {len(data) - offset}")
        magic, version, kind, name_bytes, payload_bytes, seq, step, time = _HEADER.unpack_from(data, offset)
        if (magic, version) != (_MAGIC, _VERSION):
            raise FrameError(f"a frame starts with {_MAGIC!r} and version {_VERSION}, got {magic!r} and {version}")
        start = offset + HEADER_BYTES
        body = start + name_bytes + -name_bytes % 8
        end = body + payload_bytes + -payload_bytes % 8
        if end > len(data):
            raise FrameError(f"a frame of {end - offset:,} bytes is cut off after {len(data) - offset:,}")
        name = bytes(data[start : start + name_bytes]).decode("ascii", "replace")
        payload = bytes(data[body : body + payload_bytes])
        return cls(topic=name, payload=payload, kind=kind, seq=seq, step=step, time=time), end


def split_frames(data: bytes) -> Iterator[tuple[Frame, bytes]]:
    """Every frame of a message with its own bytes.

    Raises:
        FrameError: the message holds anything but whole frames.
    """
    offset = 0
    while offset < len(data):
        frame, end = Frame.unpack(data, offset)
        yield frame, data[offset:end]
        offset = end

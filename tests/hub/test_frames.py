"""A frame is 32 bytes of header, its topic and its payload, at multiples of 8."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.hub.frames import DELTA, WHOLE, Frame, FrameError, split_frames

FRAMES = st.builds(
    Frame,
    topic=st.from_regex(r"[a-z][a-z0-9_]{0,63}", fullmatch=True),
    payload=st.binary(max_size=100),
    kind=st.sampled_from([DELTA, WHOLE]),
    seq=st.integers(1, 2**64 - 1),
    step=st.integers(-(2**31), 2**31 - 1),
    time=st.floats(allow_nan=False, allow_infinity=False),
)


def frame(**changes) -> Frame:
    fields = {"topic": "state", "payload": b"{}", "kind": WHOLE, "seq": 1, "step": 0, "time": 0.0}
    return Frame(**{**fields, **changes})


def test_the_layout_is_the_one_that_browsers_read():
    data = frame(payload=b"abc", seq=7, step=-2, time=1.5).pack()
    assert data[:8] == b"MOEF\x01\x01\x05\x00"
    assert struct.unpack_from("<I", data, 8) == (3,)
    assert struct.unpack_from("<Q", data, 12) == (7,)
    assert struct.unpack_from("<i", data, 20) == (-2,)
    assert struct.unpack_from("<d", data, 24) == (1.5,)
    assert data[32:40] == b"state\0\0\0"
    assert data[40:] == b"abc\0\0\0\0\0"


@given(st.lists(FRAMES, max_size=5))
def test_a_message_comes_apart_into_the_frames_it_was_made_of(frames):
    message = b"".join(one.pack() for one in frames)
    assert len(message) % 8 == 0
    found = list(split_frames(message))
    assert [one for one, _ in found] == frames
    assert b"".join(data for _, data in found) == message


@given(st.binary(max_size=200))
def test_other_bytes_are_refused_and_never_misread(data):
    if data:
        with pytest.raises(FrameError):
            list(split_frames(data))


@given(FRAMES, st.data())
def test_a_cut_frame_is_refused(one, data):
    packed = one.pack()
    with pytest.raises(FrameError):
        Frame.unpack(packed[: data.draw(st.integers(0, len(packed) - 1))])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"topic": ""}, "lower-case name of at most 64"),
        ({"topic": "a" * 65}, "lower-case name of at most 64"),
        ({"topic": "../x"}, "lower-case name"),
        ({"topic": "état"}, "lower-case name"),
        ({"kind": 2}, "kind must be 0"),
        ({"seq": 0}, "seq must be positive"),
        ({"step": 2**31}, "step within 32 bits"),
        ({"payload": bytes(32 * 2**20 + 1)}, "at most 33,554,432 bytes"),
    ],
)
def test_a_frame_that_does_not_fit_is_refused(changes, said):
    with pytest.raises(FrameError, match=said):
        frame(**changes)

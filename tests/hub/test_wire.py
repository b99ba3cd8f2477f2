"""Messages come out as they went in, however the bytes are cut, and what is no message is refused."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.hub.wire import Inbox, WireError, pack

MESSAGES = st.lists(
    st.binary(max_size=50) | st.dictionaries(st.text(max_size=3), st.integers(), max_size=3), max_size=5
)


@given(MESSAGES, st.integers(1, 9))
def test_messages_arrive_whole_however_the_bytes_are_cut(messages, size):
    data = b"".join(map(pack, messages))
    inbox = Inbox(1000)
    found = [got for at in range(0, len(data), size) for got in inbox.feed(data[at : at + size])]
    assert found == messages


def test_the_length_is_that_of_the_body():
    assert pack(b"abc") == b"\x03\0\0\0Fabc"
    assert pack({"a": 1}) == b'\x07\0\0\0J{"a":1}'


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (struct.pack("<Ic", 11, b"J"), "at most 10 bytes, got 11"),
        (struct.pack("<Ic", 2**32 - 1, b"F"), "at most 10 bytes"),
        (struct.pack("<Ic", 1, b"X") + b"a", "type F or J"),
        (struct.pack("<Ic", 1, b"J") + b"{", "is JSON"),
        (struct.pack("<Ic", 2, b"J") + b"[]", "is an object"),
    ],
)
def test_what_is_no_message_is_refused_before_it_is_read(data, said):
    with pytest.raises(WireError, match=said):
        list(Inbox(10).feed(data))


def test_what_is_no_number_of_json_is_not_sent():
    with pytest.raises(ValueError, match="Out of range"):
        pack({"loss": float("nan")})

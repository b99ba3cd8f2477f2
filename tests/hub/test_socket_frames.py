"""What we frame ourselves is what tornado frames."""

import pytest

from workbench.hub.socket_frames import binary_message, text_message


@pytest.mark.parametrize(
    ("size", "head"),
    [(0, b"\x82\x00"), (125, b"\x82\x7d"), (126, b"\x82\x7e\x00\x7e"), (65535, b"\x82\x7e\xff\xff")],
)
def test_short_and_medium_messages(size, head):
    assert binary_message(bytes(size)) == head + bytes(size)


def test_long_messages_and_text():
    assert binary_message(bytes(65536))[:10] == b"\x82\x7f\0\0\0\0\0\x01\0\0"
    assert text_message(b"{}") == b"\x81\x02{}"

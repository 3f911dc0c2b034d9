"""Frames as they go onto the wire without a server's help."""

import pytest
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.protocol import State
from websockets.uri import parse_uri

from wsrouter.transports import framed


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65_535, 65_536, 70_000])
@pytest.mark.parametrize("kind", [str, bytes])
def test_a_frame_is_read_back_by_another_implementation(size: int, kind: type[str] | type[bytes]) -> None:
    """A message of any length is one whole frame of its kind, each length in its shortest form."""
    sent = "x" * size if kind is str else b"\xff" * size
    client = ClientProtocol(parse_uri("ws://localhost/"), state=State.OPEN, max_size=None)
    client.receive_data(framed(sent))
    [received] = client.events_received()
    assert isinstance(received, Frame)
    assert (received.opcode, received.fin, received.rsv1) == (
        Opcode.TEXT if kind is str else Opcode.BINARY,
        True,
        False,
    )
    assert received.data == (sent.encode() if isinstance(sent, str) else sent)
    assert framed(sent) == Frame(received.opcode, received.data).serialize(mask=False)


def test_a_text_goes_out_as_utf8() -> None:
    """The length of a text is that of its bytes."""
    assert framed("é") == b"\x81\x02\xc3\xa9"


def test_a_text_without_utf8_is_no_frame() -> None:
    """A lone surrogate never reaches the wire."""
    with pytest.raises(UnicodeEncodeError):
        framed("\ud800")

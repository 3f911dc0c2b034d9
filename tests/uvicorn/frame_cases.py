"""What a client may send, frame by frame, and what is to come of it (RFC 6455, sections 5 to 8; RFC 7692).

Every case holds for uvicorn's own protocol class and for ours, but for those that say how ours ``differs``.
Reasons of a close frame are compared too, but for 1007 and 1009, for which each has words of its own.
"""

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from tests.uvicorn.serving import close, frame

MAX_SIZE: Final = 70_000
"""Bytes of a message that the servers of these cases take."""

CONT, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
TICKER: Final = "€"
SMILE: Final = "😀".encode()


@dataclass(frozen=True)
class Case:
    """What is sent, and what comes of it. A close frame with 1000 is sent after all else."""

    name: str
    sent: Sequence[bytes]
    """Each is a read of its own at the server."""
    receives: Sequence[str | bytes] = ()
    """What the application gets."""
    closes: int = 1000
    """The code of the close frame that the client gets, and of ``websocket.disconnect``."""
    pongs: Sequence[bytes] = ()
    deflate: bool = False
    differs: str = ""
    """Why uvicorn's own class does not do this."""


def deflated(data: bytes, *, fin: bool = True) -> bytes:
    """Return a message as permessage-deflate writes it."""
    compressor = zlib.compressobj(wbits=-12)
    return (compressor.compress(data) + compressor.flush(zlib.Z_SYNC_FLUSH))[: -4 if fin else None]


def whole_messages() -> Iterator[Case]:
    for size in (0, 1, 2, 124, 125, 126, 127, 128, 65_535, 65_536, MAX_SIZE):
        yield Case(f"text of {size} bytes", [frame(TEXT, b"x" * size)], ["x" * size])
        yield Case(f"binary of {size} bytes", [frame(BINARY, b"\xfe" * size)], [b"\xfe" * size])
    yield Case("two messages in one read", [frame(TEXT, b"a") + frame(BINARY, b"b")], ["a", b"b"])
    # The head alone: uvicorn's own class loses its close frame if the client still sends.
    yield Case("text beyond the limit", [frame(TEXT, b"x" * (MAX_SIZE + 1))[:14]], closes=1009)
    yield Case("binary beyond the limit", [frame(BINARY, b"x" * (MAX_SIZE + 1))[:14]], closes=1009)
    yield Case(
        "a length of 8 bytes for 5", [bytes([0x81, 0xFF]) + bytes(7) + bytes([5, 0, 0, 0, 0]) + b"hello"], ["hello"]
    )
    yield Case("a length of 2 bytes for 5", [bytes([0x81, 0xFE, 0, 5, 0, 0, 0, 0]) + b"hello"], ["hello"])
    yield Case("the longest length there is", [bytes([0x82, 0xFF]) + b"\xff" * 8 + bytes(4)], closes=1009)
    yield Case("a length of 2^63", [bytes([0x82, 0xFF, 0x80]) + bytes(7) + bytes(4)], closes=1009)


def masks() -> Iterator[Case]:
    for mask in (bytes(4), b"\xff" * 4, b"\x01\x00\x00\x00", b"abcd"):
        yield Case(f"mask {mask.hex()}", [frame(TEXT, b"masked text", mask=mask)], ["masked text"])
    for opcode in (TEXT, BINARY, PING, PONG, CLOSE):
        yield Case(f"opcode {opcode} without a mask", [frame(opcode, mask=None)], closes=1002)
    yield Case(
        "a message without a mask after one with", [frame(TEXT, b"a"), frame(TEXT, b"b", mask=None)], ["a"], 1002
    )
    yield Case(
        "a continuation without a mask", [frame(TEXT, b"a", fin=False) + frame(CONT, b"b", mask=None)], closes=1002
    )


def reserved() -> Iterator[Case]:
    for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15):
        yield Case(f"reserved opcode {opcode}", [frame(opcode, b"x")], closes=1002)
    for rsv in (1, 2, 3, 4, 5, 6, 7):
        yield Case(f"reserved bits {rsv:03b}", [frame(TEXT, b"x", rsv=rsv)], closes=1002)
    for rsv in (1, 2, 3, 5, 6, 7):
        yield Case(f"reserved bits {rsv:03b} with deflate", [frame(TEXT, b"x", rsv=rsv)], closes=1002, deflate=True)
    for opcode in (PING, PONG, CLOSE):
        yield Case(f"RSV1 on opcode {opcode} with deflate", [frame(opcode, rsv=4)], closes=1002, deflate=True)
    yield Case("a reserved bit after a message", [frame(TEXT, b"a"), frame(TEXT, b"b", rsv=2)], ["a"], 1002)
    yield Case("a reserved opcode within a message", [frame(TEXT, b"a", fin=False) + frame(3)], closes=1002)


def fragments() -> Iterator[Case]:
    hello = [frame(TEXT, b"hel", fin=False), frame(CONT, b"lo")]
    yield Case("two fragments in one read", [b"".join(hello)], ["hello"])
    yield Case("two fragments in two reads", hello, ["hello"])
    yield Case("binary fragments", [frame(BINARY, b"\xff", fin=False) + frame(CONT, b"\xfe")], [b"\xff\xfe"])
    yield Case("all fragments are empty", [frame(TEXT, fin=False) + frame(CONT, fin=False) + frame(CONT)], [""])
    yield Case("the first is empty", [frame(TEXT, fin=False) + frame(CONT, b"x")], ["x"])
    yield Case("the last is empty", [frame(TEXT, b"x", fin=False) + frame(CONT)], ["x"])
    many = frame(BINARY, b"0", fin=False) + frame(CONT, b"1", fin=False) * 1000 + frame(CONT, b"2")
    yield Case("1,002 fragments", [many], [b"0" + b"1" * 1000 + b"2"])
    endless = frame(BINARY, b"0", fin=False) + frame(CONT, fin=False) * 1100
    yield Case("1,101 fragments", [endless], closes=1008, differs="it has no limit on fragments")
    yield Case("two messages in fragments", [b"".join(hello * 2)], ["hello", "hello"])
    yield Case("a message after fragments", [b"".join(hello) + frame(TEXT, b"x")], ["hello", "x"])
    yield Case("a continuation of nothing", [frame(CONT, b"x")], closes=1002)
    yield Case("a first fragment that continues nothing", [frame(CONT, b"x", fin=False)], closes=1002)
    yield Case("a continuation after a whole message", [frame(TEXT, b"x"), frame(CONT, b"y")], ["x"], 1002)
    yield Case("a continuation after the last", [*hello, frame(CONT, b"!")], ["hello"], 1002)
    lost = "it loses messages of the read in which a breach is"
    yield Case("a message and a breach in one read", [frame(TEXT, b"a") + frame(3)], ["a"], 1002, differs=lost)
    yield Case("a text within a message", [frame(TEXT, b"a", fin=False) + frame(TEXT, b"b")], closes=1002)
    yield Case("a binary within a message", [frame(TEXT, b"a", fin=False) + frame(BINARY, b"b")], closes=1002)
    yield Case("a new message within one", [frame(TEXT, b"a", fin=False) + frame(TEXT, b"b", fin=False)], closes=1002)
    half = b"x" * (MAX_SIZE // 2)
    yield Case(
        "fragments up to the limit", [frame(BINARY, half, fin=False) + frame(CONT, half)], [b"x" * (MAX_SIZE // 2 * 2)]
    )
    beyond = [frame(BINARY, half, fin=False), frame(CONT, half + b"y")[:8]]
    yield Case("fragments beyond the limit", beyond, closes=1009)
    yield Case("closed within a message", [frame(TEXT, b"a", fin=False) + close(1000)], closes=1002)
    yield Case("one byte at a time", [bytes([byte]) for byte in b"".join(hello)], ["hello"])
    long = frame(TEXT, b"x" * 130)
    yield Case("a long frame, one byte at a time", [bytes([byte]) for byte in long], ["x" * 130])
    longer = frame(BINARY, b"x" * MAX_SIZE)
    yield Case("a head of 14 bytes in two reads", [longer[:9], longer[9:]], [b"x" * MAX_SIZE])
    yield Case(
        "a head without its payload, then the rest and more",
        [long[:8], long[8:] + hello[0], hello[1]],
        ["x" * 130, "hello"],
    )


def controls() -> Iterator[Case]:
    yield Case("an empty ping", [frame(PING)], pongs=[b""])
    yield Case("a ping of 125 bytes", [frame(PING, b"p" * 125)], pongs=[b"p" * 125])
    yield Case("a ping of 126 bytes", [frame(PING, b"p" * 126)], closes=1002)
    yield Case("a pong of 126 bytes", [frame(PONG, b"p" * 126)], closes=1002)
    yield Case("a close frame of 126 bytes", [close(1000, b"r" * 124)], closes=1002)
    yield Case("a ping in fragments", [frame(PING, b"p", fin=False)], closes=1002)
    yield Case("a pong in fragments", [frame(PONG, b"p", fin=False)], closes=1002)
    yield Case("a close frame in fragments", [frame(CLOSE, fin=False)], closes=1002)
    yield Case(
        "three pings in one read", [frame(PING, b"1") + frame(PING, b"2") + frame(PING, b"3")], pongs=[b"1", b"2", b"3"]
    )
    yield Case("a pong that nobody asked for", [frame(PONG, b"p")])
    yield Case(
        "a ping between messages", [frame(TEXT, b"a") + frame(PING, b"p") + frame(TEXT, b"b")], ["a", "b"], pongs=[b"p"]
    )
    inside = frame(TEXT, b"hel", fin=False) + frame(PING, b"p") + frame(CONT, b"lo")
    yield Case("a ping between fragments", [inside], ["hello"], pongs=[b"p"])
    yield Case("a pong between fragments", [frame(TEXT, b"a", fin=False) + frame(PONG) + frame(CONT, b"b")], ["ab"])
    nested = frame(TEXT, b"a", fin=False) + (frame(PING, b"p") + frame(CONT, b"b", fin=False)) * 3 + frame(CONT, b"c")
    yield Case("pings between all fragments", [nested], ["abbbc"], pongs=[b"p"] * 3)
    yield Case("a ping, one byte at a time", [bytes([byte]) for byte in frame(PING, b"pp")], pongs=[b"pp"])
    yield Case("a ping, then a breach", [frame(PING, b"p") + frame(3)], closes=1002, pongs=[b"p"])
    yield Case("a ping, then a close", [frame(PING, b"p") + close(1001)], closes=1001, pongs=[b"p"])
    full = frame(BINARY, b"x" * MAX_SIZE, fin=False) + frame(PING, b"p") + frame(CONT)
    yield Case(
        "a ping when the message is at its limit",
        [full],
        [b"x" * MAX_SIZE],
        pongs=[b"p"],
        differs="it counts the ping in",
    )


def closes() -> Iterator[Case]:
    for code in (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999):
        yield Case(f"close {code}", [close(code)], closes=code)
    for code in (0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535):
        yield Case(f"close {code}, which is none", [close(code)], closes=1002)
    yield Case("close without a code", [close(None)], closes=1005)
    yield Case("half a close code", [frame(CLOSE, b"\x03")], closes=1002)
    yield Case("close with a reason", [close(1000, b"bye")])
    yield Case("close with the longest reason", [close(4000, b"r" * 123)], closes=4000)
    yield Case("close with a reason of letters beyond ASCII", [close(1000, TICKER.encode())])
    yield Case("close with a reason that is not UTF-8", [close(1000, b"\xff\xfe")], closes=1007)
    yield Case("close with half a letter", [close(1000, TICKER.encode()[:2])], closes=1007)
    yield Case("a message after the close frame", [close(1000) + frame(TEXT, b"late")])
    yield Case("a breach after the close frame", [close(1000) + frame(3)])
    yield Case("a second close frame", [close(1001) + close(1002)], closes=1001)
    yield Case("messages, then a close", [frame(TEXT, b"a") + frame(TEXT, b"b") + close(1001)], ["a", "b"], 1001)
    yield Case("a close, one byte at a time", [bytes([byte]) for byte in close(3001, b"bye")], closes=3001)


def utf8() -> Iterator[Case]:
    letters = f"a{TICKER}é".encode() + SMILE
    text = letters.decode()
    for place in range(1, len(letters)):
        parts = [frame(TEXT, letters[:place], fin=False), frame(CONT, letters[place:])]
        yield Case(f"letters cut after {place} bytes", [b"".join(parts)], [text])
    one_each = [frame(CONT, bytes([byte]), fin=False) for byte in letters[1:-1]]
    yield Case(
        "letters in fragments of one byte",
        [frame(TEXT, letters[:1], fin=False) + b"".join(one_each) + frame(CONT, letters[-1:])],
        [text],
    )
    yield Case("the last letter there is", [frame(TEXT, "\U0010ffff".encode())], ["\U0010ffff"])
    yield Case("a zero byte", [frame(TEXT, b"a\0b")], ["a\0b"])
    yield Case("a byte order mark", [frame(TEXT, b"\xef\xbb\xbfa")], ["\ufeffa"])
    bad = {
        "a lone continuation byte": b"\x80",
        "a lone lead byte": b"\xe2",
        "a cut letter": b"ab\xe2\x82",
        "a cut letter within a text": b"\xe2\x82ab",
        "an overlong slash": b"\xc0\xaf",
        "an overlong zero": b"\xe0\x80\x80",
        "a surrogate": b"\xed\xa0\x80",
        "beyond Unicode": b"\xf4\x90\x80\x80",
        "a lead byte of five": b"\xf8\x88\x80\x80\x80",
        "FE": b"\xfe",
        "FF": b"\xff",
    }
    for name, data in bad.items():
        yield Case(f"{name} in a text", [frame(TEXT, data)], closes=1007)
        yield Case(f"{name} in a binary message", [frame(BINARY, data)], [data])
        yield Case(f"{name} in the second fragment", [frame(TEXT, b"ok", fin=False) + frame(CONT, data)], closes=1007)
    yield Case("a bad text after a good one", [frame(TEXT, b"a") + frame(TEXT, b"\xff")], ["a"], 1007)


def compression() -> Iterator[Case]:
    hello = deflated(b"hello")
    yield Case("deflated text", [frame(TEXT, hello, rsv=4)], ["hello"], deflate=True)
    yield Case("deflated binary", [frame(BINARY, hello, rsv=4)], [b"hello"], deflate=True)
    yield Case("an empty deflated text", [frame(TEXT, deflated(b""), rsv=4)], [""], deflate=True)
    yield Case("deflated twice", [frame(TEXT, hello, rsv=4) * 2], ["hello"] * 2, deflate=True)
    yield Case("not deflated, though it may be", [frame(TEXT, b"plain")], ["plain"], deflate=True)
    yield Case("both sorts", [frame(TEXT, hello, rsv=4) + frame(TEXT, b"plain")], ["hello", "plain"], deflate=True)
    for place in (0, 1, 3, len(hello)):
        parts = [frame(TEXT, hello[:place], fin=False, rsv=4), frame(CONT, hello[place:])]
        yield Case(f"deflated, cut after {place} bytes", [b"".join(parts)], ["hello"], deflate=True)
    inside = frame(TEXT, hello[:3], fin=False, rsv=4) + frame(PING, b"p") + frame(CONT, hello[3:])
    yield Case("a ping within a deflated message", [inside], ["hello"], pongs=[b"p"], deflate=True)
    plain = frame(TEXT, b"hel", fin=False) + frame(CONT, b"lo")
    yield Case("fragments that are not deflated", [plain], ["hello"], deflate=True)
    twice = frame(TEXT, hello[:3], fin=False, rsv=4) + frame(CONT, hello[3:], rsv=4)
    yield Case("RSV1 on a continuation", [twice], closes=1002, deflate=True, differs="it has another reason")
    late = frame(TEXT, b"a", fin=False) + frame(CONT, b"b", rsv=4)
    yield Case("RSV1 on a continuation of a plain message", [late], closes=1002, deflate=True)
    yield Case("what does not inflate", [frame(TEXT, b"\xff\xff\xff\xff", rsv=4)], closes=1002, deflate=True)
    yield Case("deflated letters that are none", [frame(TEXT, deflated(b"\xff"), rsv=4)], closes=1007, deflate=True)
    limit = deflated(b"x" * MAX_SIZE)
    yield Case("inflated to the limit", [frame(BINARY, limit, rsv=4)], [b"x" * MAX_SIZE], deflate=True)
    bomb = deflated(b"x" * (MAX_SIZE + 1))
    yield Case("inflated beyond the limit", [frame(BINARY, bomb, rsv=4)], closes=1009, deflate=True)
    half = deflated(b"x" * MAX_SIZE, fin=False)
    yield Case(
        "a bomb in two fragments",
        [frame(BINARY, half, fin=False, rsv=4) + frame(CONT, deflated(b"y"))],
        closes=1009,
        deflate=True,
    )
    huge = deflated(b"x" * 5_000_000)
    yield Case("a bomb", [frame(TEXT, huge, rsv=4)], closes=1009, deflate=True)


CASES: Final = [
    case
    for group in (whole_messages, masks, reserved, fragments, controls, closes, utf8, compression)
    for case in group()
]

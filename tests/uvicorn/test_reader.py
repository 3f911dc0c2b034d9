"""The frame reader, without a socket: the same bytes have the same outcome however they come."""

import random
import sys
from collections.abc import Iterable, Sequence

import pytest
from websockets.extensions.permessage_deflate import PerMessageDeflate

from tests.uvicorn.frame_cases import CASES, MAX_SIZE, Case, deflated
from tests.uvicorn.serving import close, frame
from wsrouter.uvicorn.reader import Fragment, FrameReader, Violation

Outcome = tuple[Sequence[object], tuple[int, str] | None]


def reader(*, deflate: bool = False) -> FrameReader:
    return FrameReader(MAX_SIZE, 1024, PerMessageDeflate(True, True, 12, 12) if deflate else None)


def read(parts: Iterable[bytes], *, deflate: bool) -> Outcome:
    """Return what is read of bytes that come in parts, and the breach that ends it."""
    each = reader(deflate=deflate)
    found: list[object] = []
    for part in parts:
        each.feed(part)
        try:
            while (received := each.read()) is not None:
                found.append(received)
        except Violation as violation:
            return found, (violation.code, violation.reason)
    return found, None


def cut(data: bytes, dice: random.Random) -> list[bytes]:
    """Cut bytes into parts of any size, short ones more often."""
    parts: list[bytes] = []
    while data:
        size = dice.choice([1, 2, 3, 5, 14, 100, 5000])
        parts.append(data[:size])
        data = data[size:]
    return parts


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_where_reads_end_makes_no_difference(case: Case) -> None:
    """Every case of the table has one outcome, whole or cut in any places."""
    data = b"".join(case.sent) + close(1000)
    whole = read([data], deflate=case.deflate)
    dice = random.Random(case.name)
    for _ in range(3):
        assert read(cut(data, dice), deflate=case.deflate) == whole


def test_nothing_is_kept_of_what_was_read() -> None:
    """An idle connection does not hold the last read of 256 KiB."""
    each = reader()
    data = frame(2, b"x" * 50_000) * 4
    before = sys.getrefcount(data)
    each.feed(data)
    assert sys.getrefcount(data) == before + 1
    while each.read() is not None:
        pass
    assert each.unread == 0
    assert sys.getrefcount(data) == before


def test_a_fragment_is_told() -> None:
    """Each frame ends a call of `read`, also one that completes nothing: who reads can stop in between."""
    each = reader()
    each.feed(frame(1, b"a", fin=False) + frame(0, fin=False) + frame(0, b"b"))
    assert [each.read() for _ in range(4)] == [Fragment(), Fragment(), "ab", None]


def test_an_unlimited_expansion_is_stopped_at_the_limit() -> None:
    """When a message is exactly at its limit, the next compressed fragment may hold nothing."""
    each = reader(deflate=True)
    first = deflated(b"x" * MAX_SIZE, fin=False)
    each.feed(frame(2, first, fin=False, rsv=4) + frame(0, deflated(b"y" * 10_000_000)))
    assert isinstance(each.read(), Fragment)
    with pytest.raises(Violation, match="over the limit"):
        each.read()

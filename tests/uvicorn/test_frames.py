"""Frame by frame, our protocol class does what uvicorn's own does."""

import asyncio
from dataclasses import dataclass, field

import pytest
from starlette.types import Receive, Scope, Send

from tests.support import serve
from tests.uvicorn.frame_cases import CASES, MAX_SIZE, Case
from tests.uvicorn.serving import OURS, STOCK, close, frames_until_end
from tests.wire import RawClient

DEFLATE = ("Sec-WebSocket-Extensions", "permessage-deflate")
OWN_WORDS = (1007, 1009)
"""Codes whose reason each class words in its own way."""

each_case = pytest.mark.parametrize(("number", "case"), list(enumerate(CASES)), ids=[case.name for case in CASES])


@dataclass
class Outcome:
    """What the application received, and what the client got."""

    received: list[str | bytes] = field(default_factory=list[str | bytes])
    disconnect: tuple[int, str] | None = None
    pongs: list[bytes] = field(default_factory=list[bytes])
    close: tuple[int, str] | None = None
    others: list[tuple[int, bytes]] = field(default_factory=list[tuple[int, bytes]])


async def outcomes(ws: str) -> list[Outcome]:
    """Return what becomes of each case."""
    found = [Outcome() for _ in CASES]
    ends = [asyncio.Event() for _ in CASES]

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        number = int(scope["path"][1:])
        await receive()
        await send({"type": "websocket.accept"})
        while (event := await receive())["type"] == "websocket.receive":
            found[number].received.append(event["text"] if event.get("text") is not None else event["bytes"])
        found[number].disconnect = told(event["code"], event.get("reason") or "")
        ends[number].set()

    async with serve(app, ws=ws, lifespan="off", ws_max_size=MAX_SIZE) as server:
        for number, case in enumerate(CASES):
            async with RawClient(server) as client:
                assert await client.handshake(f"/{number}", [DEFLATE] if case.deflate else []) == 101
                for part in case.sent:
                    client.send(part)
                    for _ in range(3):  # the server, in the same event loop, reads it
                        await asyncio.sleep(0)
                client.send(close(1000))
                for first, payload in await frames_until_end(client):
                    if first == 0x8A:
                        found[number].pongs.append(payload)
                    elif first == 0x88 and found[number].close is None:
                        code = int.from_bytes(payload[:2]) if payload else 1005
                        found[number].close = told(code, payload[2:].decode())
                    else:
                        found[number].others.append((first, payload))
            async with asyncio.timeout(5):
                await ends[number].wait()
    return found


def told(code: int, reason: str) -> tuple[int, str]:
    """Return code and reason, without words that each class has of its own."""
    return code, "" if code in OWN_WORDS else reason


@pytest.fixture(scope="module")
def ours() -> list[Outcome]:
    return asyncio.run(outcomes(OURS))


@pytest.fixture(scope="module")
def stock() -> list[Outcome]:
    return asyncio.run(outcomes(STOCK))


def test_the_table_is_long() -> None:
    """There are more than a hundred cases, each with a name of its own."""
    assert len(CASES) > 100
    assert len({case.name for case in CASES}) == len(CASES)


@each_case
def test_a_frame_has_the_outcome_of_the_table(number: int, case: Case, ours: list[Outcome]) -> None:
    """The application receives what was sent whole before a breach, the client the pongs and one close frame."""
    outcome = ours[number]
    assert outcome.received == list(case.receives)
    assert outcome.pongs == list(case.pongs)
    assert outcome.close is not None
    assert outcome.close[0] == case.closes
    assert outcome.disconnect == outcome.close
    assert outcome.others == []


@each_case
@pytest.mark.logs_errors  # uvicorn's own logs a traceback for a text that is not UTF-8
def test_uvicorns_own_class_has_the_same_outcome(
    number: int, case: Case, ours: list[Outcome], stock: list[Outcome]
) -> None:
    """What differs is said in the table, and does differ."""
    assert (stock[number] == ours[number]) is not bool(case.differs)

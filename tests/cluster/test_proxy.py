"""The proxy does what the faults need of it."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress

import pytest

from tests.cluster.proxy import Proxy


@asynccontextmanager
async def echo() -> AsyncGenerator[Proxy]:
    """Serve a proxy before a server that sends everything back in capitals, and ends at ``QUIT``."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionResetError):
            while (line := await reader.readline()).strip() not in (b"", b"QUIT"):
                writer.write(line.upper())
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server, Proxy(server.sockets[0].getsockname()[1]).serve() as proxy:
        yield proxy


class Talk:
    """A client that writes lines, and reads them within a second."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def with_(cls, proxy: Proxy) -> "Talk":
        return cls(*await asyncio.open_connection("127.0.0.1", proxy.port))

    def say(self, text: bytes) -> None:
        self.writer.write(text + b"\n")

    async def hear(self, within: float = 1.0) -> bytes:
        async with asyncio.timeout(within):
            return (await self.reader.readline()).strip()

    def hang_up(self) -> None:
        self.writer.close()


async def test_it_forwards_everything() -> None:
    """Everything goes through, and an end by the server is an end at the client."""
    async with echo() as proxy:
        talk = await Talk.with_(proxy)
        talk.say(b"hello")
        assert await talk.hear() == b"HELLO"
        talk.say(b"QUIT")
        assert await talk.hear() == b""
        talk.hang_up()


@pytest.mark.parametrize("direction", ["requests", "replies"])
async def test_what_is_held_back_comes_afterwards(direction: str) -> None:
    """While it is silent nothing comes; afterwards everything does, and nothing is lost."""
    async with echo() as proxy:
        talk = await Talk.with_(proxy)
        proxy.silence("requests" if direction == "requests" else "replies")
        talk.say(b"one")
        with pytest.raises(TimeoutError):
            await talk.hear(0.05)
        proxy.speak()
        talk.say(b"two")
        assert [await talk.hear(), await talk.hear()] == [b"ONE", b"TWO"]
        talk.hang_up()


async def test_only_subscribers_are_stalled() -> None:
    """A connection that has subscribed hears nothing more, and another one does."""
    async with echo() as proxy:
        subscriber, other = await Talk.with_(proxy), await Talk.with_(proxy)
        subscriber.say(b"SUBSCRIBE")
        assert await subscriber.hear() == b"SUBSCRIBE"
        assert len(proxy.subscribers()) == 1
        proxy.stall_subscribers()
        for talk in subscriber, other:
            talk.say(b"hello")
        assert await other.hear() == b"HELLO"
        subscriber.say(b"hello")
        proxy.speak()
        assert await subscriber.hear() == b"HELLO"
        for talk in subscriber, other:
            talk.hang_up()


async def test_a_cut_resets() -> None:
    """A cut ends what is open with a reset, and new connections are taken."""
    async with echo() as proxy:
        talk = await Talk.with_(proxy)
        talk.say(b"hello")
        await talk.hear()
        proxy.cut()
        with pytest.raises(ConnectionResetError):
            await talk.hear()
        talk.hang_up()
        again = await Talk.with_(proxy)
        again.say(b"hello")
        assert await again.hear() == b"HELLO"
        again.hang_up()

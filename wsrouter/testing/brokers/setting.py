"""What a broker's author gives to the contract tests, and what all of them begin with."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Awaitable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Final, cast
from unittest import SkipTest

from wsrouter.brokers.base import Broker, Target
from wsrouter.errors import BrokerError
from wsrouter.history import History
from wsrouter.testing.brokers.peer import FENCE, Peer

HISTORY: Final = History(size=100, ttl=60.0)
"""Of rooms where it does not matter how much is kept."""

LONG: Final = 1_000
"""Characters of a value that the text of a failure shows at most."""


class Setting(ABC):
    """Where the tests run."""

    timeout: float = 5.0
    """Seconds that a test waits for what has to come."""

    deadline: float = 2.0
    """Seconds within which the broker ends every call, whatever its server does."""

    notice: float = 10.0
    """Seconds within which the broker notices that its server does not answer."""

    ttl: float | None = None
    """Seconds after which a node that is not heard of has departed. ``None``: that is not tested."""

    @abstractmethod
    async def nodes(self, count: int) -> Sequence[Broker]:
        """Return that many brokers that share rooms with each other, and with nobody else, and are not started.

        Every test calls it once, and closes them.
        """

    async def cleanup(self) -> None:  # noqa: B027 - not every broker has something
        """Release what `nodes` opened besides the brokers, which are closed by then. By default nothing."""

    async def cut(self, broker: Broker) -> None:
        """Have a broker lose its server: what connects them is closed, and the server takes no new connection."""
        raise SkipTest("the test class has no cut(): what comes of a lost connection is not tested")

    async def silence(self, broker: Broker) -> None:
        """Have nothing come through between a broker and its server, while their connections stay open."""
        raise SkipTest("the test class has no silence(): what comes of a server that does not answer is not tested")

    async def mend(self, broker: Broker) -> None:
        """Let a broker reach its server again, after `cut` or `silence`."""
        raise SkipTest("the test class has no mend(): how the broker comes back is not tested")

    async def rewind(self) -> None:
        """Have the server lose what it keeps of rooms: all of it, or what came after some time in the past."""
        raise SkipTest("the test class has no rewind(): what comes of a server that lost its memory is not tested")

    async def forge(self, target: Target, name: str, payload: bytes) -> None:
        """Have the server carry any bytes to those who subscribed to a name, as if a broker had published them."""
        raise SkipTest("the test class has no forge(): what comes of payloads of unknown shape is not tested")

    @asynccontextmanager
    async def cluster(self, count: int) -> AsyncGenerator[list[Peer]]:
        """Run nodes that are connected, and close them in the end."""
        async with self.cold(count) as peers:
            for peer in peers:
                await peer.start()
            for peer in peers:
                await self.up(peer)
                await peer.subscribe(FENCE)
            yield peers

    @asynccontextmanager
    async def cold(self, count: int) -> AsyncGenerator[list[Peer]]:
        """Give nodes that are not started, and close them in the end."""
        brokers = await self.nodes(count)
        try:
            yield [Peer(broker, number, self.timeout) for number, broker in enumerate(brokers, 1)]
        finally:
            try:
                for broker in brokers:
                    async with self.in_time("aclose"):
                        await broker.aclose()
            finally:
                await self.cleanup()

    async def up(self, peer: Peer) -> None:
        """Wait until a node has its server."""
        await peer.until(lambda: peer.broker.link().state == "up", "link().state to be 'up'")

    async def down(self, peer: Peer) -> None:
        """Wait until a node knows that it has no server."""
        await peer.until(lambda: peer.broker.link().state == "down", "link().state to be 'down'", self.notice)

    async def fence(self, *peers: Peer) -> None:
        """Wait until what these nodes publish now came to all of them: what has not come by then won't come."""
        before = [len(peer.publications(FENCE)) for peer in peers]
        for peer in peers:
            await peer.publish(FENCE, peer.number)
        for peer, count in zip(peers, before, strict=True):
            others = {other.number for other in peers if other is not peer}
            await peer.until(partial(_heard_after, peer, count, others), "what the others published last")

    async def publish_at_last(self, peer: Peer, room: str, number: int) -> None:
        """Publish to a room with history, again and again while the server is on its way back."""
        end = asyncio.get_running_loop().time() + self.notice + self.timeout
        while True:
            try:
                return await peer.publish(room, number, history=HISTORY)
            except BrokerError:
                if asyncio.get_running_loop().time() > end:
                    raise
                await asyncio.sleep(0.02)

    async def failure(self, name: str, call: Awaitable[object]) -> BrokerError:
        """Return the error of a call that can't succeed."""
        try:
            async with self.in_time(name):
                await call
        except BrokerError as exc:
            return exc
        raise AssertionError(f"{name}() did not raise BrokerError while the server could not be reached")

    @asynccontextmanager
    async def in_time(self, name: str) -> AsyncGenerator[None]:
        """Fail if the call inside takes longer than the deadline, with a second for a busy machine."""
        timer = asyncio.timeout(self.deadline + 1.0)
        try:
            async with timer:
                yield
        except TimeoutError as exc:
            if timer.expired():
                raise AssertionError(f"{name}() did not end within its deadline of {self.deadline:g} s") from exc
            raise

    @asynccontextmanager
    async def publishing(self, peer: Peer, name: str, history: History | None = None) -> AsyncGenerator[list[int]]:
        """Publish 1, 2, 3 … to a room, one every few milliseconds, and give those that were acknowledged."""
        done: list[int] = []
        stopped = False

        async def publish() -> None:
            while not stopped:
                await peer.publish(name, len(done) + 1, history=history)
                done.append(len(done) + 1)
                await asyncio.sleep(0.005)

        task = asyncio.create_task(publish())
        try:
            yield done
        finally:
            stopped = True
            await task


def same(got: object, expected: object, what: str) -> None:
    """Check that two values are equal.

    Raises:
        AssertionError: they are not; the text shows both.
    """
    assert got == expected, f"{what}: expected {_brief(expected)}, got {_brief(got)}"


def _brief(value: object) -> str:
    """Return what a value looks like, without the middle of long texts in it."""
    text = repr(value)
    if len(text) <= LONG:
        return text
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_brief, cast(Sequence[object], value)))}]"
    return f"{text[: LONG // 2]} … {text[-LONG // 2 :]}"


def _heard_after(peer: Peer, count: int, numbers: set[int]) -> bool:
    return numbers <= set(peer.numbers(FENCE)[count:])

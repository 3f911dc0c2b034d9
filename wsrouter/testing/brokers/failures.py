"""What a broker says and does while its server does not answer."""

import asyncio
from collections.abc import Awaitable, Callable
from time import monotonic

from wsrouter.brokers.base import Entry
from wsrouter.testing.brokers.peer import Lost, Peer
from wsrouter.testing.brokers.setting import HISTORY, Setting, same


class Failures(Setting):
    """Nothing waits for ever, everything is said, and nothing is tried twice."""

    async def test_link_tells_of_a_lost_connection(self) -> None:
        """It goes down and comes up with the connection, tells for how long, and counts the gap."""
        async with self.cluster(2) as (_, b):
            await b.subscribe("room")
            await b.until(lambda: b.broker.link().since > 0.1, "link().since to grow")
            link = b.broker.link()
            same((link.state, link.gaps), ("up", 0), "state and gaps of the link before anything is lost")
            for age in (link.heartbeat_age, link.lag):
                assert age is None or 0 <= age <= self.notice, f"{link} tells of a heartbeat that nobody waits for"
            before = monotonic()
            await self.cut(b.broker)
            await self.down(b)
            since, most = b.broker.link().since, monotonic() - before + 0.05
            assert since <= most, f"link().since is {since:g} s, though the state changed less than {most:g} s ago"
            await self.mend(b.broker)
            await self.up(b)
            await b.until(lambda: any(isinstance(each, Lost) for each in b.heard), "a hole")
            assert b.broker.link().gaps > 0, "link().gaps is 0, though publications may have been lost"

    async def test_a_silent_server_is_noticed(self) -> None:
        """A server that keeps the connection and says nothing is away; what it did not say then comes, or is a hole."""
        async with self.cluster(2) as (a, b):
            await b.subscribe("room")
            await self.silence(b.broker)
            await a.publish("room", 1)
            await self.down(b)
            await self.mend(b.broker)
            await self.up(b)
            await b.until(lambda: b.story("room"), "what was published meanwhile, or word of a hole")
            await a.publish("room", 2)
            await b.goes_on("room", 2)

    async def test_what_the_server_did_not_do_raises(self) -> None:
        """Every call that needs the server raises `BrokerError` while it is away; those that give back do not raise."""
        async with self.cluster(2) as (a, _):
            await a.subscribe("room", history=HISTORY)
            await self.cut(a.broker)
            await self.down(a)
            for name, call in _calls(a).items():
                await self.failure(name, call())
            await self._give_back(a)

    async def test_nothing_waits_for_ever(self) -> None:
        """Every call ends within the deadline when the server keeps the connection and does not answer."""
        async with self.cluster(2) as (a, _):
            await a.subscribe("room", history=HISTORY)
            await self.silence(a.broker)
            tasks = [asyncio.create_task(self.failure(name, call())) for name, call in _calls(a).items()]
            await asyncio.wait(tasks)
            await asyncio.gather(*tasks)
            await self._give_back(a)

    async def test_aclose_does_not_wait_for_the_server(self) -> None:
        """It ends within the deadline, whether the server answers or not."""
        async with self.cluster(2) as (a, b):
            for peer in (a, b):
                await peer.subscribe("room")
                await peer.broker.announce("room", [Entry(f"r{peer.number}", peer.id, "u1")])
            await self.silence(a.broker)
            await self.cut(b.broker)
            for peer in (a, b):
                async with self.in_time("aclose"):
                    await peer.broker.aclose()

    async def test_what_waits_ends_when_the_broker_is_closed(self) -> None:
        """A call that has no answer yet raises `BrokerError`, at its deadline at the latest."""
        async with self.cluster(2) as (a, _):
            await self.silence(a.broker)
            waiting = asyncio.create_task(self.failure("publish", a.publish("room", 1, history=HISTORY)))
            await asyncio.sleep(0)
            try:
                async with self.in_time("aclose"):
                    await a.broker.aclose()
            finally:
                await waiting

    async def test_an_unknown_outcome_is_told(self) -> None:
        """`BrokerError.outcome_unknown` is true where the server may have got what was asked, and did not answer."""
        async with self.cluster(2) as (a, _):
            await self.silence(a.broker)
            error = await self.failure("publish", a.publish("room", 1, history=HISTORY))
            assert error.outcome_unknown, f"outcome_unknown is False in {error!r}, though the server may have it"

    async def test_what_was_not_sent_did_not_happen(self) -> None:
        """`BrokerError.outcome_unknown` is false where the server can't have got it, and then nobody hears it."""
        async with self.cluster(2) as (a, b):
            await b.subscribe("plain")
            await b.subscribe("kept", history=HISTORY)
            await self.cut(a.broker)
            await self.down(a)
            for room, history in (("plain", None), ("kept", HISTORY)):
                error = await self.failure("publish", a.publish(room, 1, history=history))
                assert not error.outcome_unknown, f"outcome_unknown is True in {error!r}, though nothing was sent"
            await self.mend(a.broker)
            await self.up(a)
            await self.fence(a, b)
            for room in ("plain", "kept"):
                same(b.numbers(room), [], f"what {b} heard of publications that were not sent")

    async def test_nothing_is_tried_twice(self) -> None:
        """A publication whose outcome is not known comes once or not at all, however the server comes back."""
        async with self.cluster(2) as (a, b):
            for peer in (a, b):
                await peer.subscribe("room", history=HISTORY)
            await self.silence(a.broker)
            await self.failure("publish", a.publish("room", 1, history=HISTORY))
            await self.mend(a.broker)
            await self.publish_at_last(a, "room", 2)
            await b.until(lambda: 2 in b.numbers("room"), "what is published afterwards")
            await self.up(a)
            await self.fence(a, b)
            for peer in (a, b):
                count = peer.numbers("room").count(1)
                assert count <= 1, f"{peer} heard a publication {count} times that was published once"

    async def test_a_slot_that_was_not_given_is_free(self) -> None:
        """Where `acquire` raised, no slot is held once the server is back, though it may have given one."""
        async with self.cluster(2) as (a, b):
            await self.silence(a.broker)
            await self.failure("acquire", a.broker.acquire("u1", "c1", 1, replace=False))
            await self.mend(a.broker)
            await self.up(a)
            await self._becomes_free(b)

    async def test_a_slot_that_is_released_meanwhile_becomes_free(self) -> None:
        """`release` does not raise while the server is away, and the slot is given back as soon as it can be."""
        async with self.cluster(2) as (a, b):
            await a.broker.acquire("u1", "c1", 1, replace=False)
            await self.cut(a.broker)
            await self.down(a)
            async with self.in_time("release"):
                await a.broker.release("u1", "c1")
            await self.mend(a.broker)
            await self.up(a)
            await self._becomes_free(b)

    async def _becomes_free(self, peer: Peer) -> None:
        """Wait until the only slot can be taken."""
        loop = asyncio.get_running_loop()
        end = loop.time() + self.timeout
        while loop.time() < end:
            slot = await peer.broker.acquire("u1", "c2", 1, replace=False)
            if slot.held:
                return
            await asyncio.sleep(0.02)
        raise AssertionError(f"the slot is held for ever: {peer} could not take it within {self.timeout:g} s")

    async def _give_back(self, peer: Peer) -> None:
        async with self.in_time("unsubscribe"):
            await peer.broker.unsubscribe("room", "room")
        async with self.in_time("release"):
            await peer.broker.release("u1", "c1")


def _calls(peer: Peer) -> dict[str, Callable[[], Awaitable[object]]]:
    """Return one call of every method that needs the server."""
    broker, entry = peer.broker, Entry("r1", peer.id, "u1")
    return {
        "publish": lambda: peer.publish("other", 1),
        "publish with history": lambda: peer.publish("room", 1, history=HISTORY),
        "subscribe": lambda: broker.subscribe("room", "new"),
        "recover": lambda: broker.recover("room", HISTORY, None),
        "announce": lambda: broker.announce("room", [entry]),
        "withdraw": lambda: broker.withdraw("room", ["r1"]),
        "entries": lambda: broker.entries("room"),
        "acquire": lambda: broker.acquire("u1", "c1", 1, replace=False),
    }

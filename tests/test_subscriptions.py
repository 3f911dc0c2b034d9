"""What a process asks of its broker while many come and go, are cancelled, and the broker fails."""

import asyncio
from random import Random
from typing import Any

import pytest

from wsrouter import BrokerError, History
from wsrouter.brokers import MemoryBroker
from wsrouter.subscriptions import Subscriptions


class Gated(MemoryBroker):
    """Takes its time: it goes on when it is told to, and may fail then."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []
        self.subscribed = False
        self.gate = asyncio.Event()
        self.fails = False

    async def subscribe(self, target: str, name: str, history: History | None = None) -> None:
        self.asked.append("subscribe")
        await self.gate.wait()
        if self.fails:
            raise BrokerError("away")
        self.subscribed = True

    async def unsubscribe(self, target: str, name: str) -> None:
        self.asked.append("unsubscribe")
        await self.gate.wait()
        self.subscribed = False


def begin(coro: Any) -> "asyncio.Task[None]":
    return asyncio.create_task(coro)


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_the_end_of_a_subscription_is_told() -> None:
    """After the last that needs it, and after one that failed: before anybody else subscribes."""
    broker = Gated()
    ended: list[tuple[str, str]] = []
    subscriptions = Subscriptions(broker, lambda target, name: ended.append((target, name)))
    broker.gate.set()
    for _ in range(2):
        await subscriptions.hold("room", "a")
    await subscriptions.release("room", "a")
    assert ended == []
    await subscriptions.release("room", "a")
    assert ended == [("room", "a")]
    broker.fails = True
    with pytest.raises(BrokerError):
        await subscriptions.hold("user", "u")
    assert ended == [("room", "a"), ("user", "u")]


async def test_all_wait_for_one_subscription() -> None:
    """The second that needs a name is not told that it is subscribed before it is."""
    broker = Gated()
    subscriptions = Subscriptions(broker)
    tasks = [begin(subscriptions.hold("room", "a")) for _ in range(3)]
    await turns()
    assert not any(task.done() for task in tasks)
    broker.gate.set()
    await asyncio.gather(*tasks)
    for _ in range(3):
        assert broker.asked == ["subscribe"]
        await subscriptions.release("room", "a")
    assert broker.asked == ["subscribe", "unsubscribe"]
    assert len(subscriptions) == 0


async def test_a_cancelled_one_takes_nothing_from_others() -> None:
    """Who waits behind one that is cancelled subscribes for itself."""
    broker = Gated()
    subscriptions = Subscriptions(broker)
    first, second = [begin(subscriptions.hold("room", "a")) for _ in range(2)]
    await turns()
    first.cancel()
    await turns()
    assert first.cancelled()
    broker.gate.set()
    await second
    assert broker.subscribed
    await subscriptions.release("room", "a")
    assert broker.asked == ["subscribe", "subscribe", "unsubscribe"]
    assert len(subscriptions) == 0


async def test_a_cancelled_subscription_is_taken_back() -> None:
    """It may have happened: so the broker is asked to end it."""
    broker = Gated()
    subscriptions = Subscriptions(broker)
    only = begin(subscriptions.hold("room", "a"))
    await turns()
    broker.gate.set()
    only.cancel()
    await asyncio.wait([only])
    assert broker.asked == ["subscribe", "unsubscribe"]
    assert len(subscriptions) == 0


async def test_a_failure_is_for_whom_it_met() -> None:
    """Each gets the broker's failure as its own, nothing is needed afterwards, and later ones try again."""
    broker = Gated()
    broker.fails = True
    broker.gate.set()
    subscriptions = Subscriptions(broker)
    results = await asyncio.gather(*(subscriptions.hold("room", "a") for _ in range(2)), return_exceptions=True)
    assert [type(result) for result in results] == [BrokerError, BrokerError]
    assert len(subscriptions) == 0
    broker.fails = False
    await subscriptions.hold("room", "a")
    assert broker.subscribed


async def test_who_comes_while_the_last_leaves_is_subscribed_again() -> None:
    """An unsubscription that is under way comes to its end first."""
    broker = Gated()
    broker.gate.set()
    subscriptions = Subscriptions(broker)
    await subscriptions.hold("room", "a")
    broker.gate.clear()
    leaving = begin(subscriptions.release("room", "a"))
    await turns()
    coming = begin(subscriptions.hold("room", "a"))
    await turns()
    broker.gate.set()
    await asyncio.gather(leaving, coming)
    assert broker.asked == ["subscribe", "unsubscribe", "subscribe"]
    assert broker.subscribed


async def test_nobody_needs_what_is_released_once_more() -> None:
    """A release of what nobody needs asks nothing of the broker."""
    broker = Gated()
    await Subscriptions(broker).release("user", "a")
    assert broker.asked == []


async def test_a_room_is_followed_while_it_is_subscribed() -> None:
    """Where its members stand is forgotten with the last: what is published then is not heard of."""
    broker = Gated()
    broker.gate.set()
    subscriptions = Subscriptions(broker)
    for _ in range(2):
        await subscriptions.hold("room", "a", History())
    follower = subscriptions.followers["a"]
    await subscriptions.release("room", "a")
    assert subscriptions.followers == {"a": follower}
    await subscriptions.release("room", "a")
    assert subscriptions.followers == {}


async def test_what_is_prepared_is_so_for_all() -> None:
    """Nobody has a name before what has to be done first is done, once; if that fails, it is not subscribed."""
    broker = Gated()
    broker.gate.set()
    subscriptions = Subscriptions(broker)
    go, asked = asyncio.Event(), 0

    async def prepare() -> None:
        nonlocal asked
        asked += 1
        await go.wait()
        if asked == 1:
            raise BrokerError("away")

    first, second = [begin(subscriptions.hold("room", "a", prepare=prepare)) for _ in range(2)]
    await turns()
    assert not first.done()
    assert not second.done()
    go.set()
    with pytest.raises(BrokerError):
        await first
    await second
    await subscriptions.hold("room", "a", prepare=prepare)
    assert asked == 2


class Shaky(Gated):
    """Takes some turns of the event loop for everything, and fails at times."""

    def __init__(self, random: Random) -> None:
        super().__init__()
        self.random = random

    async def subscribe(self, target: str, name: str, history: History | None = None) -> None:
        assert not self.subscribed or self.unsure, "it asks once"
        self.unsure = True
        await turns(self.random.randrange(4))
        if self.random.random() < 0.2:
            raise BrokerError("away")
        self.subscribed = True
        self.unsure = False

    async def unsubscribe(self, target: str, name: str) -> None:
        await turns(self.random.randrange(4))
        self.subscribed = self.unsure = False

    unsure = False
    """Whether a subscription was cut off amid its way."""


@pytest.mark.parametrize("seed", range(100))
async def test_whoever_needs_it_has_it(seed: int) -> None:
    """Whatever is cancelled and fails: while somebody holds a name it is subscribed, and afterwards it is not."""
    random = Random(seed)
    broker = Shaky(random)
    subscriptions = Subscriptions(broker)
    held = 0

    async def stay() -> None:
        nonlocal held
        await turns(random.randrange(8))
        await subscriptions.hold("room", "a")
        held += 1
        try:
            for _ in range(random.randrange(4)):
                assert broker.subscribed
                await asyncio.sleep(0)
        finally:
            held -= 1
            await asyncio.shield(begin(subscriptions.release("room", "a")))

    tasks = [begin(stay()) for _ in range(8)]
    for task in random.sample(tasks, 3):
        await turns(random.randrange(4))
        task.cancel()
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        assert result is None or isinstance(result, BrokerError | asyncio.CancelledError), result
    await turns(20)
    assert not broker.subscribed
    assert len(subscriptions) == 0

"""Rooms that are behind, and who asks the broker about them."""

import asyncio

from tests.support import eventually
from wsrouter import History, Position, RoomOptions
from wsrouter.brokers import MemoryBroker, Publication, Recovery
from wsrouter.following import Caught, Follower
from wsrouter.recovering import AT_ONCE, Recoveries

OPTIONS = RoomOptions(history=History())


class Gated(MemoryBroker):
    """Answers when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()
        self.asked: list[str] = []

    async def recover(self, room: str, history: History, since: Position | None) -> Recovery[Publication]:
        self.asked.append(room)
        await self.gate.wait()
        return Recovery("epoch", 0, True)


async def test_a_room_that_is_behind_when_all_are_through_is_recovered() -> None:
    """Also if as many as may be at the same time end in one iteration of the loop, and it is behind within that."""
    followers: dict[str, Follower] = {}
    for room in [*map(str, range(AT_ONCE)), "late"]:
        followers[room] = Follower()
        followers[room].start(Recovery("epoch", 0, True))
        followers[room].lose()
    broker = Gated()
    caught: list[str] = []

    def deliver(room: str, _: Caught) -> None:
        caught.append(room)

    recoveries = Recoveries(broker, followers, lambda room: OPTIONS, deliver)
    for room in followers:
        if room != "late":
            recoveries.ask(room)
    await eventually(lambda: len(broker.asked) == AT_ONCE)
    broker.gate.set()
    while len(recoveries):  # noqa: ASYNC110 - in the very iteration
        await asyncio.sleep(0)
    recoveries.ask("late")
    await eventually(lambda: "late" in caught)
    await recoveries.aclose()

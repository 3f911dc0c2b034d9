"""What is said to the broker in the background: some rooms at a time, and again while it does not answer."""

import asyncio
import logging
from collections import Counter

import pytest

from tests.support import eventually
from wsrouter import BrokerError
from wsrouter.announcing import AT_ONCE, Announcer


class Work:
    """What there is to do for a room: it waits for a gate, and fails as told."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.gate.set()
        self.failure: Exception | None = None
        self.begun: Counter[str] = Counter()
        self.done: Counter[str] = Counter()
        self.busy: Counter[str] = Counter()
        self.most = 0
        self.announcer = Announcer(self.see_to)

    async def see_to(self, room: str) -> None:
        self.begun[room] += 1
        self.busy[room] += 1
        assert self.busy[room] == 1, "a room is seen to once at a time"
        self.most = max(self.most, self.busy.total())
        try:
            await self.gate.wait()
            if self.failure is not None:
                raise self.failure
            self.done[room] += 1
        finally:
            self.busy[room] -= 1


async def test_what_comes_at_the_same_time_is_done_at_once() -> None:
    """A room that is added many times is seen to once, and once more if it was added meanwhile."""
    work = Work()
    work.gate.clear()
    for _ in range(10):
        work.announcer.add("a")
    await eventually(lambda: work.begun["a"])
    for _ in range(10):
        work.announcer.add("a")
    work.gate.set()
    await eventually(lambda: work.done["a"] == 2)
    await work.announcer.aclose(1)
    assert work.done == {"a": 2}


async def test_one_room_does_not_hold_up_others() -> None:
    """While one waits for the broker others are seen to, up to a number of them."""
    work = Work()
    work.gate.clear()
    work.announcer.add("slow")
    await eventually(lambda: work.begun["slow"])
    for number in range(200):
        work.announcer.add(f"room {number}")
    await eventually(lambda: work.busy.total() == AT_ONCE)
    work.gate.set()
    await eventually(lambda: work.done.total() == 201)
    assert work.most == AT_ONCE
    await work.announcer.aclose(1)


async def test_a_room_that_comes_when_all_are_through_is_seen_to() -> None:
    """Also if as many as may be at the same time end in one iteration of the loop, and it comes within that."""
    work = Work()
    work.gate.clear()
    for number in range(AT_ONCE):
        work.announcer.add(f"room {number}")
    await eventually(lambda: work.busy.total() == AT_ONCE)
    work.gate.set()
    while work.done.total() < AT_ONCE:  # noqa: ASYNC110 - in the very iteration
        await asyncio.sleep(0)
    work.announcer.add("late")
    await eventually(lambda: work.done["late"])
    await work.announcer.aclose(1)


async def test_a_broker_that_does_not_answer_is_asked_again(caplog: pytest.LogCaptureFixture) -> None:
    """After pauses that grow, of all rooms together; the log says so once, and once when it is over."""
    work = Work()
    work.failure = BrokerError("away")
    with caplog.at_level(logging.INFO, "wsrouter"):
        for number in range(100):
            work.announcer.add(f"room {number}")
        await eventually(lambda: work.begun.total() >= 3)
        assert work.begun.total() <= 3 * AT_ONCE
        work.failure = None
        await eventually(lambda: work.done.total() == 100)
        await work.announcer.aclose(1)
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("WARNING", "presence is not told to other nodes for now: away"),
        ("INFO", "presence is told to other nodes again"),
    ]


async def test_a_broker_that_is_back_is_told_at_once() -> None:
    """Whoever knows that it answers ends the pause, however long it has become."""
    work = Work()
    work.failure = BrokerError("away")
    work.announcer.add("a")
    await eventually(lambda: work.begun["a"] == 6, 5)  # the next pause is a second and more
    work.failure = None
    work.announcer.resume()
    await eventually(lambda: work.done["a"] == 1, 0.5)
    await work.announcer.aclose(1)


@pytest.mark.logs_errors
async def test_a_broker_that_breaks_its_contract_is_asked_again(caplog: pytest.LogCaptureFixture) -> None:
    """What it raises is logged with its traceback."""
    work = Work()
    work.failure = ZeroDivisionError("oops")
    work.announcer.add("a")
    await eventually(lambda: work.begun["a"])
    work.failure = None
    await eventually(lambda: work.done["a"])
    await work.announcer.aclose(1)
    assert "ZeroDivisionError: oops" in caplog.text


async def test_at_the_end_all_that_is_left_is_said() -> None:
    """What is under way, what waits, and what is added meanwhile; then nothing runs any more."""
    work = Work()
    work.gate.clear()
    for number in range(200):
        work.announcer.add(f"room {number}")
    closing = asyncio.create_task(work.announcer.aclose(5))
    await eventually(lambda: work.busy.total() == AT_ONCE)
    work.announcer.add("late")
    work.announcer.add("room 0")
    work.gate.set()
    await closing
    assert work.done.total() == 202


async def test_the_end_does_not_wait_for_a_broker_that_is_away() -> None:
    """It is tried once more, also in the middle of a pause; what it does not answer to is given up."""
    work = Work()
    work.failure = BrokerError("away")
    work.announcer.add("a")
    await eventually(lambda: work.begun["a"] == 5, 5)
    await asyncio.wait_for(work.announcer.aclose(60), 1)
    assert work.begun["a"] == 6


async def test_the_end_has_a_deadline() -> None:
    """A broker that never answers is not waited for any longer than that; nothing is left."""
    work = Work()
    work.gate.clear()
    work.announcer.add("a")
    await asyncio.wait_for(work.announcer.aclose(0.05), 1)
    assert (work.begun, work.done, work.busy.total()) == ({"a": 1}, {}, 0)

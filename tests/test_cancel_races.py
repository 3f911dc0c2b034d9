"""A `$cancel` that races with the end of its call: in every order it hits that call or nothing."""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from typing import Annotated

import pytest
from fastapi import Depends

from tests.injecting import app_of
from wsrouter import WebSocketHandler, on
from wsrouter.testing import TestConnection, WebSocketTestClient

LONG = 3600.0


async def after(hops: int, work: Awaitable[None]) -> None:
    """Do something after some iterations of the event loop."""
    for _ in range(hops):
        await asyncio.sleep(0)
    await work


class Racing:
    """A handler whose method ends when the test says so, and which looks for cancellations that are not its own."""

    def __init__(self, max_in_flight: int, *, cleans_up: bool) -> None:
        self.began = asyncio.Event()
        self.result: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.ends: list[str] = []
        self.left = asyncio.Event()
        racing, most = self, max_in_flight

        async def cleaning() -> AsyncIterator[None]:
            try:
                yield
            finally:
                for _ in range(3):
                    await asyncio.sleep(0)
                racing.ends.append("clean")

        async def nothing() -> None: ...

        used = cleaning if cleans_up else nothing

        class Handler(WebSocketHandler):
            max_in_flight = most

            @on("work")
            async def work(self, message: None, used: Annotated[None, Depends(used)]) -> str:
                racing.began.set()
                return await racing.result

            @on("ping")
            async def ping(self, message: None) -> int:
                return await undisturbed()

            async def on_disconnect(self) -> None:
                racing.ends.append(f"on_disconnect {await undisturbed()}")
                racing.left.set()

        self.app = app_of(Handler)

    async def finish(self) -> None:
        if not self.result.done():
            self.result.set_result("finished")


async def undisturbed() -> int:
    """Suspend for a while, and return how many cancellations the task has."""
    for _ in range(20):
        await asyncio.sleep(0)
    async with asyncio.timeout(LONG):
        await asyncio.sleep(0)
    task = asyncio.current_task()
    assert task is not None
    return task.cancelling()


async def cancel_and_ping(ws: TestConnection) -> None:
    await ws.send_json({"type": "$cancel", "id": "work"})
    await ws.send_json({"type": "ping", "id": "ping"})


async def cancel_and_leave(ws: TestConnection) -> None:
    await ws.send_json({"type": "$cancel", "id": "work"})
    await ws.close()


RACES = [(finish, cancel) for finish in range(10) for cancel in range(10)]


@pytest.mark.parametrize("max_in_flight", [1, 4])
@pytest.mark.parametrize("cleans_up", [False, True])
async def test_a_cancel_that_comes_as_the_method_finishes_hits_nothing_else(
    max_in_flight: int, cleans_up: bool
) -> None:
    """In 100 orders of result and $cancel the call has one reply, and the message after it is not disturbed."""
    codes: set[str] = set()
    racing = Racing(max_in_flight, cleans_up=cleans_up)
    async with WebSocketTestClient(racing.app) as client, client.connect("/ws") as ws:
        for finish, cancel in RACES:
            racing.began.clear()
            racing.result = asyncio.get_running_loop().create_future()
            await ws.send_json({"type": "work", "id": "work"})
            await racing.began.wait()
            async with asyncio.TaskGroup() as group:
                group.create_task(after(finish, racing.finish()))
                group.create_task(after(cancel, cancel_and_ping(ws)))
            replies = {reply["id"]: reply for reply in [await ws.receive(), await ws.receive()]}
            assert set(replies) == {"work", "ping"}
            assert replies["ping"]["data"] == 0
            work = replies["work"]
            codes.add(work["data"] if work["type"] == "$ok" else work["error"]["code"])
        await ws.expect_nothing()
    assert codes == {"finished", "cancelled"}
    assert racing.ends == ["clean"] * (len(RACES) if cleans_up else 0) + ["on_disconnect 0"]


@pytest.mark.parametrize("max_in_flight", [1, 4])
@pytest.mark.parametrize("cleans_up", [False, True])
async def test_a_cancel_that_comes_as_the_client_leaves_does_not_hit_on_disconnect(
    max_in_flight: int, cleans_up: bool
) -> None:
    """In 100 orders of result, $cancel and leaving, clean-up and on_disconnect run once, and to their end."""
    for finish, cancel in RACES:
        racing = Racing(max_in_flight, cleans_up=cleans_up)
        async with WebSocketTestClient(racing.app) as client, client.connect("/ws") as ws:
            await ws.send_json({"type": "work", "id": "work"})
            await racing.began.wait()
            async with asyncio.TaskGroup() as group:
                group.create_task(after(finish, racing.finish()))
                group.create_task(after(cancel, cancel_and_leave(ws)))
            await asyncio.wait_for(racing.left.wait(), 5)
        assert racing.ends == [*(["clean"] if cleans_up else []), "on_disconnect 0"]

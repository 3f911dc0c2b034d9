"""Several hubs that share rooms, users and history: what a client sees does not depend on the node that it is on."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import InvalidStatus

from tests.envelopes import close_of, receive, send
from tests.nodes import Said, nodes
from tests.support import connect
from wsrouter import ConfigurationError, Connection, Hub
from wsrouter.brokers import MemoryBroker, Publication


async def said(ws: ClientConnection, *numbers: int) -> None:
    """Check that these come next, in this order."""
    for n in numbers:
        frame = await receive(ws)
        assert (frame["type"], frame["data"]) == ("said", {"n": n})


async def answer(ws: ClientConnection) -> Any:
    """Return the next frame that answers a call, whatever comes before."""
    while "id" not in (frame := await receive(ws)):
        pass
    return frame


async def test_a_broadcast_reaches_every_node() -> None:
    """Members get it once each, wherever they are, in the order in which it was published, without whom it excludes."""
    async with nodes(3) as (a, b, c):
        clients = [await node.enter("room=hall") for node in (a, b, c)]
        for n in range(20):
            await a.hub.broadcast("hall", Said(n=n))
        await said(clients[1], *range(20))
        await send(clients[1], "say to others", ["hall", 20], id=1)
        assert (await answer(clients[1]))["type"] == "$ok"
        await c.hub.broadcast("hall", Said(n=21))
        await said(clients[0], *range(22))
        await said(clients[1], 21)
        await said(clients[2], *range(22))


async def test_a_node_gets_what_it_has_members_for() -> None:
    """It subscribes with the first member of a room, and not to others; when the last has left, it gets no more."""
    async with nodes() as (a, b):
        one = await a.enter("room=hall")
        two = await b.enter("room=yard")
        await a.hub.broadcast("hall", Said(n=1))
        await said(one, 1)
        assert (a.hub.stats().published, b.hub.stats().published) == (1, 0)
        await send(two, "$leave", {"room": "yard"}, id=1)
        await answer(two)
        await a.hub.broadcast("yard", Said(n=2))
        assert b.hub.stats().published == 0


async def test_users_are_reached_on_every_node() -> None:
    """`send_to_user` gets to every device, and `disconnect_user` closes every one, wherever it is called."""
    async with nodes() as (a, b):
        devices = [await node.enter("user=ada") for node in (a, b)]
        other = await b.enter("user=bob")
        await a.hub.send_to_user("ada", Said(n=1))
        for device in devices:
            await said(device, 1)
        await b.hub.disconnect_user("ada", reason="banned")
        for device in devices:
            assert await close_of(device) == (4403, "banned")
        await a.hub.send_to_user("bob", Said(n=2))
        await said(other, 2)


async def test_a_handshake_that_is_not_through_is_reached_too() -> None:
    """Who is disconnected on one node while another still finds out who they are does not get in; who comes
    afterwards does."""
    finding_out, go = asyncio.Event(), asyncio.Event()

    async def slowly(connection: Connection) -> None:
        if "slow" in connection.query_params:
            finding_out.set()
            await go.wait()

    async with nodes(guards=lambda: [slowly]) as (a, b):
        late = asyncio.create_task(b.enter("user=ada&slow"))
        await finding_out.wait()
        await a.hub.disconnect_user("ada")
        go.set()
        with pytest.raises(InvalidStatus) as denied:
            await late
        assert denied.value.response.status_code == 403
        again = await b.enter("user=ada")
        await b.hub.send_to_user("ada", Said(n=1))
        await said(again, 1)


async def test_recovery_on_another_node() -> None:
    """A client that lost one node gets from the other exactly what it missed, and then what is live."""
    async with nodes() as (a, b):
        async with connect(a.server, "/") as ws:
            await send(ws, "$join", {"room": "feed:tea"}, id=1)
            first = await receive(ws)
            await answer(ws)
            for n in (1, 2):
                await b.hub.broadcast("feed:tea", Said(n=n))
            await said(ws, 1, 2)
        await a.hub.broadcast("feed:tea", Said(n=3))
        await b.hub.broadcast("feed:tea", Said(n=4))
        again = await b.enter()
        await send(again, "$join", {"room": "feed:tea", "since": f"{first['data']['epoch']}:2"}, id=1)
        assert (await receive(again))["data"] == {**first["data"], "offset": 2, "recovered": True, "count": 2}
        await said(again, 3, 4)
        assert (await answer(again))["type"] == "$ok"
        await a.hub.broadcast("feed:tea", Said(n=5))
        assert (await receive(again))["offset"] == 5


async def test_a_script_publishes_from_beside() -> None:
    """A hub without connections reaches the members of another."""
    async with nodes(1) as (a,):
        ws = await a.enter("room=hall&user=ada")
        async with Hub(MemoryBroker(beside=a.broker)) as script:
            await script.broadcast("hall", Said(n=1))
            await script.send_to_user("ada", Said(n=2))
            await said(ws, 1, 2)
            await script.disconnect_user("ada")
        assert await close_of(ws) == (4403, "")


async def test_a_broker_serves_one_hub() -> None:
    """The second hub on one `MemoryBroker` is told what to do instead of taking everything from the first."""
    broker = MemoryBroker()
    async with Hub(broker):
        with pytest.raises(ConfigurationError, match=r"MemoryBroker\(beside="):
            async with Hub(broker):
                pass
        async with Hub(MemoryBroker(beside=broker)):
            pass
    async with Hub(broker):
        pass


async def test_who_publishes_to_a_room_of_another_sort_is_not_heard(caplog: pytest.LogCaptureFixture) -> None:
    """A process that takes a room for raw, or a raw one for none, is dropped with a line in the log."""
    async with nodes() as (a, b):
        ws = await a.enter("room=plain&user=ada")
        raw = Publication("room", "plain", frame=b"\x00")
        for publication in raw, replace(raw, target="user", name="ada"):
            await b.broker.publish(publication)
        await b.hub.broadcast("plain", Said(n=1))
        assert (await receive(ws))["type"] == "said"
        assert caplog.text.count("'plain'") == 1

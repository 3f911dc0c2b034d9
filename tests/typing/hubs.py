"""The hub, and the end of a connection."""

from collections.abc import Mapping
from typing import Literal, assert_type

from wsrouter import CloseInfo, Connection, Hub, HubStats, Message, RoomOptions
from wsrouter.brokers import Broker, MemoryBroker


class Notice(Message):
    text: str


async def worker(broker: Broker) -> None:
    async with Hub(broker) as hub:
        assert_type(hub, Hub)
        assert_type(await hub.broadcast("news", Notice(text="hi")), None)
        await hub.send_to_user("u7", Notice(text="hi"))
        await hub.disconnect_user("u7", code=4403, reason="banned")


async def several(connections: set[str]) -> None:
    hub = Hub(MemoryBroker(), rooms={"files:*": RoomOptions(raw=True)})
    await hub.broadcast("news", Notice(text="hi"), exclude="id")
    await hub.broadcast("news", Notice(text="hi"), exclude=connections)
    await hub.broadcast("files:1", b"frame")
    await hub.broadcast("files:1", "frame")
    assert_type(hub.connections, Mapping[str, Connection])
    assert_type(hub.rooms, Mapping[str, int])
    assert_type(hub.stats(), HubStats)


async def close(connection: Connection) -> None:
    assert_type(connection.user_id, str | None)
    assert_type(connection.cookies, Mapping[str, str])
    assert_type(connection.rooms, frozenset[str])
    assert_type(connection.closed, CloseInfo | None)
    assert_type(await connection.close(4403, "banned"), None)
    if connection.closed is not None:
        assert_type(connection.closed.code, int)
        assert_type(connection.closed.by, Literal["client", "server"])

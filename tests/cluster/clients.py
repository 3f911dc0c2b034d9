"""Clients that come back with their positions, and write down everything that they see."""

import asyncio
import json
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from random import Random
from typing import Any, Final

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException

from tests.cluster.nodes import Node
from tests.cluster.records import Away, Gap, Joined, Log, Member, Note, Skip
from tests.cluster.settings import USER, keeps
from tests.support import vanish
from wsrouter import Position

HANDSHAKE: Final = 4.0
"""Seconds that a client waits for a handshake before it goes to another node."""

FINAL: Final = frozenset({1000, 1002, 1003, 1007, 1008, 1009})
"""Close codes after which a client does not come back, beside 44xx."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Something that a client waited for."""

    what: str
    """``join``, ``handshake`` or ``call``."""

    node: int
    at: float
    took: float
    """Seconds."""

    outcome: str
    """``ok``, or what it was told in place of that."""


@dataclass(slots=True)
class Presence:
    """Who is in a room, as one client sees it."""

    members: dict[str, set[str]] = field(default_factory=dict[str, set[str]])
    """Mapping of user to its devices."""

    changes: list[tuple[float, str, str, str]] = field(default_factory=list[tuple[float, str, str, str]])
    """When, ``join`` or ``leave``, user and device, of every ``$presence_diff``."""

    at: float = 0.0
    """When it was told last."""

    states: int = 0
    """How often it was told everything."""

    def receive(self, type: str, data: Any, at: float) -> None:
        """Apply a frame."""
        self.at = at
        if type == "$presence":
            self.states += 1
            self.members = {user: set(devices) for user, devices in data["members"].items()}
            return
        for user, devices in data["join"].items():
            self.members.setdefault(user, set()).update(devices)
            self.changes += [(at, "join", user, device) for device in devices]
        for user, devices in data["leave"].items():
            self.members.get(user, set()).difference_update(devices)
            self.changes += [(at, "leave", user, device) for device in devices]
            if not self.members.get(user):
                self.members.pop(user, None)


class Link:
    """What clients and publishers share: a connection to one of the nodes, and to another one after that.

    Args:
        name: of the client, and of its user if nothing else is said.
        nodes: where it may connect.
        home: the one that it goes to first.
        user: id of its user.
    """

    def __init__(self, name: str, nodes: Sequence[Node], home: int, user: str | None = None) -> None:
        self.name = name
        self.user = user or name
        self.node = home
        """Where it is connected, or tries to."""
        self.waits: list[Wait] = []
        self.closes: list[tuple[float, int]] = []
        """When its connection was closed, and with which code."""
        self.surprises: list[str] = []
        """What it was told and does not understand."""
        self.ws: ClientConnection | None = None
        self.is_over = False
        """Whether it was told not to come back."""
        self._nodes = nodes
        self._random = Random(name)
        self._stopping = False

    async def run(self) -> None:
        """Be connected until `stop`, or a close code that says not to come back."""
        while not (self._stopping or self.is_over):
            ws = await self._connect()
            if ws is None:
                self.node = (self.node + 1) % len(self._nodes)
                await asyncio.sleep(self._random.uniform(0.05, 0.2))
                continue
            self.ws = ws
            try:
                with suppress(ConnectionClosed):
                    await self.serve(ws)
            finally:
                self.ws = None
                if not self._stopping:
                    self.lost()
                await ws.close()
            # Not `close_code`: that is the client's own where the server said nothing.
            code = 1006 if ws.protocol.close_rcvd is None else ws.protocol.close_rcvd.code
            if not self._stopping:
                self.closes.append((time.monotonic(), code))
                self.is_over = code in FINAL or 4400 <= code < 4500
                self.node = (self.node + 1) % len(self._nodes)
                await asyncio.sleep(self._random.uniform(0.05, 0.3))

    async def stop(self) -> None:
        """Say goodbye."""
        self._stopping = True
        if self.ws is not None:
            await self.ws.close()

    async def serve(self, ws: ClientConnection) -> None:
        """Read a connection until it ends."""
        raise NotImplementedError

    def lost(self) -> None:
        """Take notice that the connection is gone."""

    async def _connect(self) -> ClientConnection | None:
        began = time.monotonic()
        outcome, ws = "ok", None
        try:
            ws = await connect(
                self._nodes[self.node].url(f"/desk?name={self.user}"),
                proxy=None,
                compression=None,
                open_timeout=HANDSHAKE,
                ping_interval=1,
                ping_timeout=3,
                close_timeout=0.5,
                max_queue=None,
            )
        except InvalidStatus as denial:
            outcome = str(denial.response.status_code)
        except TimeoutError:
            outcome = "no answer"
        except OSError:
            outcome = "refused"
        except WebSocketException as failure:
            outcome = type(failure).__name__
        self.waits.append(Wait("handshake", self.node, began, time.monotonic() - began, outcome))
        return ws


@dataclass(slots=True)
class _Join:
    room: str
    since: Position | None
    at: float
    told: bool = False
    """Whether its ``$joined`` came."""


class Client(Link):
    """A member of rooms.

    Args:
        rooms: that it joins.
        restless: seconds after which, at most, it drops its connection, again and again.
    """

    def __init__(
        self,
        name: str,
        nodes: Sequence[Node],
        home: int,
        rooms: Sequence[str],
        *,
        user: str | None = None,
        restless: float | None = None,
    ) -> None:
        super().__init__(name, nodes, home, user)
        self.logs = {room: Log(name, room, "history" if keeps(room) else "plain", user=self.user) for room in rooms}
        self.mail = Log(name, f"{USER}{self.user}", "plain", user=self.user)
        """What is sent to its user."""
        self.presence = {room: Presence() for room in rooms if room.startswith("here:")}
        self.is_restless = restless is not None
        self._restless = restless
        self._ids = count(1)
        self._joining: dict[int, _Join] = {}

    @property
    def all_logs(self) -> list[Log]:
        """What it saw of its rooms, and of its user."""
        return [*self.logs.values(), self.mail]

    def is_member(self) -> bool:
        """Tell whether it is a member of all its rooms."""
        return self.ws is not None and all(log.member for log in self.logs.values())

    def settle(self) -> None:
        """Be restless no more."""
        self._restless = None

    async def serve(self, ws: ClientConnection) -> None:
        self._joining = {}
        self.mail.add(Member(time.monotonic(), self.node))
        tasks: list[asyncio.Task[None]] = []
        try:
            if self._restless is not None:
                tasks.append(asyncio.create_task(self._drop(ws, self._random.uniform(0.2, 1.0) * self._restless)))
            for room in self.logs:
                await self._join(ws, room)
            async for frame in ws:
                again = self._receive(json.loads(frame), time.monotonic())
                if again is not None:
                    tasks.append(asyncio.create_task(self._join(ws, again, after=self._random.uniform(0.1, 0.3))))
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def lost(self) -> None:
        at = time.monotonic()
        for log in self.all_logs:
            log.add(Away(at))
        for join in self._joining.values():
            self.waits.append(Wait("join", self.node, join.at, at - join.at, "lost"))

    async def _drop(self, ws: ClientConnection, after: float) -> None:
        await asyncio.sleep(after)
        if self._restless is not None and not self._stopping:
            await vanish(ws)

    async def _join(self, ws: ClientConnection, room: str, after: float = 0.0) -> None:
        await asyncio.sleep(after)
        id, since = next(self._ids), self.logs[room].position
        self._joining[id] = _Join(room, since, time.monotonic())
        data = {"room": room} if since is None else {"room": room, "since": str(since)}
        with suppress(ConnectionClosed):
            await ws.send(json.dumps({"type": "$join", "id": id, "data": data}))

    def _receive(self, frame: dict[str, Any], at: float) -> str | None:
        """Write a frame down, and return the room if a join of it has to be tried again."""
        room: str | None = frame.get("room")
        type, data = frame["type"], frame.get("data", {})
        log = self.mail if room is None else self.logs[room]
        match type:
            case "note":
                log.add(Note(at, data["publisher"], data["number"], frame.get("offset")))
            case "$skip":
                log.add(Skip(at, frame["offset"]))
            case "$gap":
                log.add(Gap(at))
            case "$joined":
                log.add(self._joined(log.room, data, at))
            case "$presence" | "$presence_diff":
                self.presence[log.room].receive(type, data, at)
            case "$ok" | "$error":
                return self._answered(frame, at)
            case _:
                self.surprises.append(f"{at:.3f} {json.dumps(frame)[:500]}")
        return None

    def _joined(self, room: str, data: dict[str, Any], at: float) -> Joined:
        join = next((each for each in self._joining.values() if each.room == room and not each.told), None)
        if join is not None:
            join.told = True
        return Joined(
            at,
            self.node,
            Position(data["epoch"], data["offset"]),
            data["recovered"],
            data["count"],
            join is not None,
            None if join is None else join.since,
        )

    def _answered(self, frame: dict[str, Any], at: float) -> str | None:
        join = self._joining.pop(frame["id"])
        error = frame.get("error")
        outcome = "ok" if error is None else error["code"]
        self.waits.append(Wait("join", self.node, join.at, at - join.at, outcome))
        if error is None:
            self.logs[join.room].add(Member(at, self.node))
            return None
        if outcome != "unavailable" or not error["retry"]:
            self.surprises.append(f"{at:.3f} {json.dumps(frame)[:500]}")
        return join.room

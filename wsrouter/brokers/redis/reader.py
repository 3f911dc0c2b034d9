"""What Redis publishes: a connection of its own that is subscribed to channels, and again after every loss."""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from time import monotonic
from typing import Any, Final, Generic, TypeVar

from redis.exceptions import ResponseError

from wsrouter.brokers.redis.alarms import Alarm
from wsrouter.brokers.redis.connections import Connection, Connector, ask, info, pack
from wsrouter.brokers.redis.lines import Line, Unasked
from wsrouter.brokers.redis.publisher import is_misplaced, run_of
from wsrouter.errors import BrokerError

_MOST_TOGETHER: Final = 512
"""Channels in one command."""

T = TypeVar("T")


class _Request:
    """A channel that is to be subscribed to, or not any more."""

    __slots__ = ("asked_at", "channel", "done", "regains", "subscribes")

    def __init__(
        self,
        channel: bytes,
        *,
        subscribes: bool,
        done: "asyncio.Future[None] | None" = None,
        asked_at: float = 0.0,
        regains: bool = False,
    ) -> None:
        self.channel = channel
        self.subscribes = subscribes
        self.done = done
        """Who waits for it."""
        self.asked_at = asked_at
        """When they began to."""
        self.regains = regains
        """Whether the connection before was subscribed to it."""

    def fail(self, why: BrokerError) -> bool:
        """Tell who waits for it; return whether anybody did."""
        if self.done is None or self.done.done():
            return False
        self.done.set_exception(why)
        return True


class Reader(Line, Generic[T]):
    """Subscribes to channels, each of which stands for something.

    Args:
        connector: opens connections.
        timeout: seconds for one command.
        changed: called when it is up, and when it is down.
        deliver: called with what a channel stands for and what was published to it.
        regained: called with what channels stand for that were lost and are subscribed to again, before anything is
            delivered that came after that.
        misplaced: called when a channel is not on this server any more.
        sharded: whether channels belong to slots of a cluster.
    """

    def __init__(
        self,
        connector: Connector,
        timeout: float,
        changed: Callable[[], None],
        deliver: Callable[[T, bytes], None],
        regained: Callable[[Sequence[T]], None],
        misplaced: Callable[[], None],
        *,
        sharded: bool = False,
    ) -> None:
        super().__init__("reader", connector, timeout, changed)
        self.channels: dict[bytes, T] = {}
        """What each channel stands for."""
        self.astray: set[bytes] = set()
        """Those of them that the server does not serve any more: they have to be adopted by whoever does."""
        self._deliver = deliver
        self._tell_regained = regained
        self._misplaced = misplaced
        self._prefix = b"s" if sharded else b""
        self._most_together = 1 if sharded else _MOST_TOGETHER  # those in one command have to be in one slot
        self._asked: deque[_Request] = deque()
        self._under_way: deque[list[_Request]] = deque()
        self._awaited: deque[_Request] = deque()
        self._alarm: Alarm | None = None
        self._regained: list[T] = []

    async def subscribe(self, channel: bytes, subject: T) -> None:
        """Subscribe to a channel, and see it confirmed.

        Raises:
            BrokerError: Redis is down, did not answer in time, or refused.
        """
        if self._broken is None:
            raise BrokerError(f"Redis at {self._connector.address} is down: {self.reason}")
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        request = _Request(channel, subscribes=True, done=done, asked_at=monotonic())
        self.channels[channel] = subject
        self._awaited.append(request)
        if self._alarm is None:
            self._alarm = Alarm(self._timeout, self._look_at_the_clock)
        self._ask([request])
        try:
            await done
        except BaseException:
            self.unsubscribe(channel)
            raise

    def adopt(self, channels: Mapping[bytes, T]) -> None:
        """Subscribe to channels that were subscribed to before, elsewhere or here: something may have been missed."""
        self.channels.update(channels)
        self.astray.difference_update(channels)
        if self._broken is not None:
            self._ask([_Request(channel, subscribes=True, regains=True) for channel in channels])

    def unsubscribe(self, channel: bytes) -> None:
        """Be subscribed to a channel no longer; nothing happens if it is not."""
        self.astray.discard(channel)
        if self.channels.pop(channel, None) is not None and self._broken is not None:
            self._ask([_Request(channel, subscribes=False)])

    async def _greet(self, connection: Connection) -> None:
        server, replication = await ask(connection, pack("INFO", "server"), pack("INFO", "replication"))
        self.run = run_of(info(server) | info(replication))

    def _opened(self) -> None:
        self.astray.clear()
        if self.channels:
            self._ask([_Request(channel, subscribes=True, regains=True) for channel in self.channels])
        else:
            self._came_up()

    def _ask(self, requests: Iterable[_Request]) -> None:
        self._asked.extend(requests)
        self._write_more()

    def _outgoing(self) -> bytes:
        commands: list[bytes] = []
        while self._asked:
            together = [self._asked.popleft()]
            subscribes = together[0].subscribes
            while self._asked and self._asked[0].subscribes is subscribes and len(together) < self._most_together:
                together.append(self._asked.popleft())
            self._under_way.append(together[::-1])
            verb = b"subscribe" if subscribes else b"unsubscribe"
            commands.append(pack(self._prefix + verb, *(each.channel for each in together)))
        return b"".join(commands)

    def _take(self, reply: Any) -> None:
        if isinstance(reply, ResponseError):
            self._refused(reply)
            return
        try:
            kind, channel, payload = reply
        except (TypeError, ValueError):
            raise Unasked(f"it said what was not asked for: {reply!r:.100}") from None
        if kind.endswith(b"message"):
            subject = self.channels.get(channel)
            if subject is not None:
                if self._regained:
                    self._tell()
                self._deliver(subject, payload)
        elif kind == b"sunsubscribe" and not self._is_next(channel, subscribes=False):
            self._went_astray(channel)
        else:
            self._confirmed(channel, subscribes=b"un" not in kind)

    def _is_next(self, channel: bytes, *, subscribes: bool) -> bool:
        """Whether it is the turn of a request."""
        request = self._under_way[0][-1] if self._under_way else None
        return request is not None and request.channel == channel and request.subscribes is subscribes

    def _went_astray(self, channel: bytes) -> None:
        if channel in self.channels:
            self.astray.add(channel)
            self._misplaced()

    def _confirmed(self, channel: bytes, *, subscribes: bool) -> None:
        if not self._is_next(channel, subscribes=subscribes):
            raise Unasked("it confirmed what was not asked for")
        requests = self._under_way[0]
        request = requests.pop()
        if request.done is not None and not request.done.done():
            request.done.set_result(None)
        if request.regains and channel in self.channels:
            self._regained.append(self.channels[channel])
        if not requests:
            self._ended()

    def _ended(self) -> None:
        self._under_way.popleft()
        self._tell()
        if not self._under_way and not self._asked and not self.up:
            self._came_up()

    def _tell(self) -> None:
        regained, self._regained = self._regained, []
        if regained:
            self._tell_regained(regained)

    def _refused(self, reply: ResponseError) -> None:
        if not self._under_way:
            raise Unasked(f"it refused what was not asked for: {reply}")
        misplaced = is_misplaced(reply)
        for request in self._under_way[0]:
            if request.done is not None:
                request.fail(BrokerError(f"Redis refused: {reply}"))
            elif misplaced and request.channel in self.channels:
                self.astray.add(request.channel)
            elif request.regains:
                self.break_off(reply)  # without this channel it is of no use
                return
        self._ended()
        if misplaced:
            self._misplaced()

    def _lost(self) -> None:
        requests = [*self._asked, *(request for together in self._under_way for request in together)]
        self._asked.clear()
        self._under_way.clear()
        self._regained.clear()
        for request in requests:
            if request.fail(BrokerError(f"Redis at {self._connector.address}: {self.reason}")):
                self.channels.pop(request.channel, None)

    def _look_at_the_clock(self) -> None:
        self._alarm = None
        while self._awaited:
            request = self._awaited[0]
            left = request.asked_at + self._timeout - monotonic()
            if request.done is None or request.done.done():
                self._awaited.popleft()
            elif left > 0:
                self._alarm = Alarm(left, self._look_at_the_clock)
                return
            elif self.read_at < request.asked_at:
                self.break_off(f"no answer within {self._timeout:g} s")
                return
            else:  # it is there, and has more to say than can be read in time
                request.fail(BrokerError(f"Redis at {self._connector.address} did not confirm a subscription in time"))

    async def aclose(self) -> None:
        await super().aclose()
        self.up, self.reason = False, "it is closed"
        self._lost()
        self.channels.clear()
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

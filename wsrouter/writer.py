"""What goes out on one socket: in order, bounded, every frame with a deadline."""

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable
from typing import Any, Final, Protocol

from pydantic_core import to_json
from starlette.types import Message as Event

from wsrouter.codecs import Codec, Frame
from wsrouter.errors import cut_reason, is_close_code
from wsrouter.frames import CloseInfo, Send
from wsrouter.limits import Limits
from wsrouter.outbox import Gap, Outbox
from wsrouter.runs import Run
from wsrouter.tasks import within

logger = logging.getLogger("wsrouter")

SLOW_CONSUMER: Final = 4508
LOST: Final = CloseInfo(1006)
"""What is known of a client to which nothing can be sent, until the server tells more. It may have sent more before."""
TURN_SENDS: Final = 256
"""After so many sends that the server took at once, whoever sends gives the loop back."""


class Shared:
    """What the connections of a hub have in common: what waits for many of them, and what their outboxes did."""

    __slots__ = ("dropped", "lone", "slow", "superseded")

    def __init__(self) -> None:
        self.lone: Run | None = None
        """The one run that waits for all its `Run.recipients` at once; who sends something else takes it along."""
        self.dropped = 0
        self.superseded = 0
        self.slow = 0


_NOBODY: Final = Shared()
"""For connections that no hub has taken up yet."""


class Owner(Protocol):
    """Whom a connection tells that it ends."""

    def closing(self) -> None:
        """Take notice that this side begins to close, or that nothing can be sent any more; ``closed`` says which."""


class Writer(ABC):
    """The sending half of a connection.

    Args:
        send: the ASGI ``send``.
        codec: what the connection speaks.
        limits: bounds and deadlines.
        owner: is told when it ends from this side.
    """

    __slots__ = (
        "_accepted",
        "_below_bound",
        "_outbox",
        "_send",
        "_sends",
        "closed",
        "codec",
        "cork",
        "limits",
        "owner",
        "shared",
        "straight",
        "turned_away",
    )

    def __init__(self, send: Send, codec: Codec, limits: Limits, owner: Owner | None) -> None:
        self.codec = codec
        self.limits = limits
        self.owner = owner
        self.closed: CloseInfo | None = None
        """How it ended or is being ended, ``None`` while it is open."""
        self.turned_away: CloseInfo | None = None
        """How it is to be denied, although no guard did: somebody ended it before it was accepted."""
        self.cork: list[Run] = []
        """Publications of this iteration of the event loop; `flush` sends them on."""
        self.straight: Callable[[bytes], object] | None = None
        """Writes bytes of the wire at once, while nothing waits on a connection that keeps up."""
        self.shared = _NOBODY
        self._send = send
        self._accepted = False
        self._sends = 0
        self._outbox: Outbox[Any] | None = None
        """Made when something has to wait; what it holds is the path's own: events, or bytes of the wire."""
        self._below_bound: asyncio.Future[None] | None = None

    async def accept(self, subprotocol: str | None, headers: list[tuple[bytes, bytes]]) -> None:
        """Accept the handshake.

        Raises:
            OSError: the client has left, or the server does not take it within ``Limits.send`` (`TimeoutError`).
        """
        # The first message may come before this returns: what it makes us send waits until then.
        self._accepted = True
        event: Event = {"type": "websocket.accept", "subprotocol": subprotocol, "headers": headers}
        await within(self.limits.send, self._send(event))

    @abstractmethod
    async def write(self, frame: Frame) -> None:
        """Send a frame after everything that was sent before; see `Connection.send`."""

    @abstractmethod
    def reply(self, frame: Frame) -> None:
        """Queue an answer that nobody can wait for. A full outbox closes the connection with 4508."""

    @abstractmethod
    def flush(self) -> bool:
        """Send on what is corked, and return whether a task does the rest; never waits, never raises."""

    def take(self, run: Run) -> bool:
        """Send on a run that has ended, as `flush` does, behind what is corked."""
        self.cork.append(run)
        return self.flush()

    def start_close(self, code: int, reason: str, *, discard: bool = False) -> None:
        """Queue the close frame; nothing is sent after it. The first close counts, later ones do nothing."""
        if not is_close_code(code):
            raise ValueError(f"close({code}): no endpoint may send that close code; use 1000 or 3000 to 4999")
        if self.closed is None and not self._accepted:
            raise RuntimeError("The connection is not accepted yet: raise Deny to turn it away")
        if not discard:
            self.take_along()
            self.flush()
        if self.closed is not None:
            return
        reason = cut_reason(reason)
        self.closed = CloseInfo(code, reason, "server")
        self.straight = None
        if discard:
            self._discard()
        self._release_senders()
        self._send_close(code, reason)
        if self.owner is not None:
            self.owner.closing()

    def turn_away(self, code: int, reason: str) -> None:
        """Close, or if the handshake is not through yet see to it that it is denied; for who ends it from outside."""
        if self._accepted:
            self.start_close(code, reason)
        elif self.turned_away is None:
            self.turned_away = CloseInfo(code, cut_reason(reason), "server")

    @abstractmethod
    async def flushed(self) -> None:
        """Wait until what is queued is sent, for at most ``Limits.close`` seconds."""

    def lost(self, close: CloseInfo) -> None:
        """Note that the client has left: nothing can be sent any more."""
        if self.closed is None or self.closed is LOST:
            self.closed = close
        self.straight = None
        self._discard()
        self._release_senders()

    @abstractmethod
    async def aclose(self) -> None:
        """End whatever still sends."""

    def forget(self) -> None:
        """Let go of its owner, when all is over."""
        self.owner = None

    @abstractmethod
    def _send_close(self, code: int, reason: str) -> None:
        """Send the close frame when what is queued before it is sent."""

    def take_along(self) -> None:
        """Put what waits for this connection among others on its own cork, before what it is sent next."""
        run = self.shared.lone
        if run is not None and self in run.recipients and self not in run.served:
            run.served.add(self)
            run.open = False
            self.cork.append(run)

    def _discard(self) -> None:
        self.cork.clear()
        if self._outbox is not None:
            self._outbox.clear()

    def cut_off(self) -> None:
        """Note that nothing can be sent any more; how the client has left is still to be heard."""
        was_open = self.closed is None
        self.lost(LOST)
        if was_open and self.owner is not None:
            self.owner.closing()

    def failed(self, exc: Exception) -> None:
        if isinstance(exc, OSError | RuntimeError):
            logger.debug("%r: sending failed, the client is taken for gone", self, exc_info=exc)
            self.cut_off()
            return
        logger.error("%r: sending failed", self, exc_info=exc)
        if self.closed is None:
            self.start_close(1011, "internal error", discard=True)
        else:
            self.lost(LOST)

    def unwritable(self, exc: Exception) -> None:
        """Close, because what was to be sent has no frame: it can't be left out without a word."""
        logger.error("%r: a frame can't be made", self, exc_info=exc)
        if self.closed is None:
            self.start_close(1011, "internal error", discard=True)

    def too_slow(self) -> None:
        """Give up a client that does not read."""
        if self.closed is None:
            self.shared.slow += 1
            self.start_close(SLOW_CONSUMER, "slow consumer", discard=True)

    def _queue(self, item: Any, size: int) -> Outbox[Any]:
        """Put a frame of this connection's own into the outbox."""
        if self._outbox is None:
            self._outbox = Outbox(self.limits.outbox_bytes, self.limits.outbox_frames)
        self._outbox.push(item, size)
        return self._outbox

    def _offer(self, run: Run, item: Any, size: int, key: Hashable) -> bool:
        """Offer a publication to the outbox; false if that ended the connection."""
        outbox = self._outbox
        if outbox is None:
            outbox = self._outbox = Outbox(self.limits.outbox_bytes, self.limits.outbox_frames)
        if run.tells_of_gap:
            outbox.lose(run.room or "")
            return True
        offered = outbox.offer(item, size, run.room or "", run.overflow, key)
        if not offered:
            self.too_slow()
            return False
        if offered.dropped or offered.superseded:
            self.shared.dropped += offered.dropped
            self.shared.superseded += offered.superseded
        return True

    def _gap(self, gap: Gap) -> Frame:
        return self.codec.publication("$gap", to_json({"dropped": gap.dropped}), gap.room or None)

    async def _wait_below_bound(self) -> None:
        if self._below_bound is None:
            self._below_bound = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(self.limits.send):
                await asyncio.shield(self._below_bound)
        except TimeoutError:
            self.too_slow()

    def _release_senders(self) -> None:
        if self._below_bound is not None:
            self._below_bound.set_result(None)
            self._below_bound = None

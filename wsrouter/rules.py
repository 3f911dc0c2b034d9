"""How the rooms of a pattern behave."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, cast, get_args

from wsrouter.errors import ConfigurationError
from wsrouter.history import History
from wsrouter.outbox import Overflow

_REMEMBERED: Final = 4096
"""Names whose rule is remembered; then all are looked up anew."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RoomOptions:
    """How the rooms of one pattern behave.

    Raises:
        ConfigurationError: an option that is none, or does not go with another.
    """

    raw: bool = False
    """Frames go out as they are given, for raw handlers; such a room has members of that sort only."""

    overflow: Overflow = "disconnect"
    """What becomes of publications for a member whose outbox is full (``Limits.outbox_bytes`` and
    ``outbox_frames``), because it does not read as fast as they come.

    - ``"disconnect"`` closes it with 4508.
    - ``"drop_new"`` drops what comes, ``"drop_old"`` what has waited longest. A ``$gap`` frame with the count stands
      where it was.
    - ``"latest"`` keeps of each room, message type and key (``class Price(Message, key="symbol")``) what is newest,
      from when anything waits. What is superseded is no gap. If there is still no room, it drops as ``drop_old`` does.
    """

    history: History | None = None
    """How much is kept for members that come back, ``None`` for nothing. Publications have an ``offset`` then, a join
    is answered by ``$joined``, and nobody's publications are dropped: only ``overflow="disconnect"`` goes with it."""

    presence: bool = False
    """Whether members are told who is in the room: ``$presence`` on join, and ``$presence_diff`` from then on."""

    compress: bool = False
    """Whether publications are compressed, once for all, for members that negotiated permessage-deflate on a server
    with `wsrouter.uvicorn.WebSocketProtocol`. It costs about 30 µs per publication, and nothing per member."""

    max_members: int | None = None
    """Members that a room may have in this process; a join above that raises. ``None`` is any number."""

    def __post_init__(self) -> None:
        if self.overflow not in get_args(Overflow):
            expected = ", ".join(map(repr, get_args(Overflow)))
            raise ConfigurationError(f"RoomOptions(overflow={self.overflow!r}): expected one of {expected}")
        history = cast(object, self.history)
        if history is not None and not isinstance(history, History):
            raise ConfigurationError(f"RoomOptions(history={history!r}): expected History(...)")
        if self.raw and self.overflow != "disconnect":
            raise ConfigurationError(
                f"RoomOptions(raw=True, overflow={self.overflow!r}): a raw room has no frame that tells of a gap;"
                ' only "disconnect" goes with it'
            )
        if self.raw and (self.history is not None or self.presence):
            raise ConfigurationError(
                "RoomOptions(raw=True): a raw room has no frames but those that are broadcast, so it has neither"
                " history nor presence"
            )
        if self.history is not None and self.overflow != "disconnect":
            raise ConfigurationError(
                f"RoomOptions(history=..., overflow={self.overflow!r}): what is dropped would be a hole in the history;"
                ' only "disconnect" goes with it: who is closed comes back with its position'
            )
        count = cast(object, self.max_members)
        if count is not None and (isinstance(count, bool) or not isinstance(count, int) or count < 1):
            raise ConfigurationError(f"RoomOptions(max_members={count!r}): expected a number above zero")


class Rules:
    """Finds the options of a room.

    Args:
        options: mapping of a pattern of names (``*`` is any text) to options; the first that matches rules.

    Raises:
        ConfigurationError: it is of something else.
    """

    __slots__ = ("_patterns", "_remembered")

    def __init__(self, options: Mapping[str, RoomOptions]) -> None:
        for name, each in cast(Mapping[object, object], options).items():
            if not isinstance(name, str) or not isinstance(each, RoomOptions):
                raise ConfigurationError(f"rooms={{{name!r}: {each!r}}}: expected a text and RoomOptions(...)")
        self._patterns = tuple((pattern(name), each) for name, each in options.items())
        self._remembered: dict[str, RoomOptions] = {}

    def of(self, room: str) -> RoomOptions:
        """Return the options of a room; the defaults if no pattern matches."""
        if not self._patterns:
            return _DEFAULT
        options = self._remembered.get(room)
        if options is None:
            if len(self._remembered) >= _REMEMBERED:
                self._remembered.clear()
            options = self._remembered[room] = next(
                (each for pattern, each in self._patterns if pattern.fullmatch(room)), _DEFAULT
            )
        return options


_DEFAULT: Final = RoomOptions()


def pattern(name: str) -> re.Pattern[str]:
    """Return what matches the names of rooms: ``*`` is any text, everything else stands for itself.

    It takes a time that grows with the length of a text, never faster, since clients may choose the text.
    """
    first, *others = map(re.escape, name.split("*"))
    if not others:
        return re.compile(first)
    *middle, last = others
    # What is in the middle is found where it stands first, once and for all: that leaves most for the rest.
    return re.compile(f"{first}{''.join(f'(?>.*?{part})' for part in middle)}.*{last}", re.DOTALL)

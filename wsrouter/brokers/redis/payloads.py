"""What nodes tell each other: a line of JSON, and after it what it is about, as it is.

    {"v":1,"n":"Xk2…","k":"message","t":"chat.said"}
    {"text":"hi"}

The line has a version, and is checked before it is believed: whoever can write to Redis can publish. A room with
history has the place of the publication too, which Redis puts in: ``{"v":1,"e":epoch,"o":offset,"n":…``.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, NotRequired, TypeAlias

from pydantic import ConfigDict, Field, TypeAdapter, with_config
from pydantic_core import from_json, to_json
from typing_extensions import TypedDict

from wsrouter.brokers.base import Entry, Publication, Target
from wsrouter.history import Position
from wsrouter.members import MAX_META_BYTES

_VERSION: Final = b'{"v":1,'
_SHAPE: Final = ConfigDict(strict=True, extra="forbid")

_Node = Annotated[str, Field(pattern="^[A-Za-z0-9_-]{1,32}$")]
_Epoch = Annotated[str, Field(pattern="^[A-Za-z0-9_-]{1,128}$")]
_Offset = Annotated[int, Field(ge=1, lt=10**16)]


@with_config(_SHAPE)
class MessageHeader(TypedDict):
    """Of what a room or a user gets. What follows is its data as JSON, or a frame."""

    v: Literal[1]
    n: _Node
    k: Literal["message"]
    t: str
    key: NotRequired[str]
    x: NotRequired[list[str]]
    u: NotRequired[list[str]]
    f: NotRequired[Literal["text", "bytes"]]
    e: NotRequired[_Epoch]
    o: NotRequired[_Offset]


@with_config(_SHAPE)
class DisconnectHeader(TypedDict):
    """Of the order to disconnect a user. Nothing follows."""

    v: Literal[1]
    n: _Node
    k: Literal["disconnect"]
    id: str
    t: str
    c: int
    only: NotRequired[list[str]]


@with_config(_SHAPE)
class HoleHeader(TypedDict):
    """Of the notice that publications could not be published. Nothing follows."""

    v: Literal[1]
    n: _Node
    k: Literal["hole"]


@with_config(_SHAPE)
class BeatHeader(TypedDict):
    """Of a heartbeat. Nothing follows."""

    v: Literal[1]
    n: _Node
    k: Literal["beat"]
    o: _Offset


@with_config(_SHAPE)
class PresentHeader(TypedDict):
    """Of entries of the node that are new or changed. They follow, as a list."""

    v: Literal[1]
    n: _Node
    k: Literal["present"]


@with_config(_SHAPE)
class GoneHeader(TypedDict):
    """Of entries that left. Their refs follow, as a list."""

    v: Literal[1]
    n: _Node
    k: Literal["gone"]


@with_config(_SHAPE)
class _Item(TypedDict):
    """An entry, without the node that it is of."""

    ref: Annotated[str, Field(max_length=64)]
    user: str
    meta: Annotated[str, Field(max_length=MAX_META_BYTES)]
    dropped: bool


Header: TypeAlias = MessageHeader | DisconnectHeader | HoleHeader | BeatHeader | PresentHeader | GoneHeader
_ITEM: Final = TypeAdapter(_Item)
_ITEMS: Final = TypeAdapter(list[_Item])
_META: Final = TypeAdapter(dict[str, Any])
_REFS: Final = TypeAdapter(list[str], config=ConfigDict(strict=True))
_HEADER: Final[TypeAdapter[Header]] = TypeAdapter(Annotated[Header, Field(discriminator="k")])


class Payloads:
    """Writes what one node tells.

    Args:
        node: its id.
    """

    def __init__(self, node: str) -> None:
        self._begin = _VERSION + b'"n":%b,' % to_json(node)

    def is_own(self, payload: bytes) -> bool:
        """Whether a payload without a place in a stream is this node's own."""
        return payload.startswith(self._begin)

    def message(self, publication: Publication) -> bytes:
        """Return what a room or a user gets.

        Raises:
            ValueError: a text that JSON can't hold.
        """
        header: dict[str, Any] = {"k": "message", "t": publication.type}
        if publication.key is not None:
            header["key"] = publication.key
        if publication.exclude:
            header["x"] = list(publication.exclude)
        if publication.exclude_users:
            header["u"] = list(publication.exclude_users)
        body = publication.data
        if isinstance(publication.frame, str):
            header["f"], body = "text", publication.frame.encode()
        elif publication.frame is not None:
            header["f"], body = "bytes", publication.frame
        return b"%b\n%b" % (self._line(header), body)

    def disconnect(self, order: Publication, id: str) -> bytes:
        """Return the order to disconnect a user; ``id`` is that of no other."""
        header: dict[str, Any] = {"k": "disconnect", "id": id, "t": order.type, "c": order.code}
        if order.only:
            header["only"] = list(order.only)
        return self._line(header) + b"\n"

    def hole(self) -> bytes:
        """Return the notice that something could not be published."""
        return self._line({"k": "hole"}) + b"\n"

    def beat(self, number: int) -> bytes:
        """Return a heartbeat."""
        return self._line({"k": "beat", "o": number}) + b"\n"

    def present(self) -> bytes:
        """Return what goes before a list of `item`."""
        return self._line({"k": "present"}) + b"\n"

    def gone(self) -> bytes:
        """Return what goes before a list of refs."""
        return self._line({"k": "gone"}) + b"\n"

    def _line(self, header: Mapping[str, Any]) -> bytes:
        return self._begin + to_json(header)[1:]


def read(payload: bytes) -> tuple[Header, bytes]:
    """Return what a payload is, and what follows.

    Raises:
        ValueError: it is of no shape that is known.
    """
    line, end, body = payload.partition(b"\n")
    if not end:
        raise ValueError("it has no end of line")
    return _HEADER.validate_json(line), body


def publication_of(header: MessageHeader, body: bytes, target: Target, name: str) -> Publication:
    """Return the publication to a room or a user.

    Raises:
        ValueError: the data is no JSON, or the text no UTF-8.
    """
    kind = header.get("f")
    if kind is None and body:
        from_json(body, allow_inf_nan=False)
    return Publication(
        target,
        name,
        header["t"],
        body if kind is None else b"",
        None if kind is None else body if kind == "bytes" else body.decode(),
        header.get("key"),
        frozenset(header.get("x", ())),
        exclude_users=frozenset(header.get("u", ())),
        epoch=header.get("e"),
        offset=header.get("o"),
    )


def order_of(header: DisconnectHeader, user: str, age: float = 0.0) -> Publication:
    """Return the order to disconnect a user."""
    only = frozenset(header.get("only", ()))
    return Publication("disconnect", user, header["t"], code=header["c"], only=only, age=age)


def item(entry: Entry) -> bytes:
    """Return an entry as it is published and kept."""
    return to_json({"ref": entry.ref, "user": entry.user, "meta": entry.meta.decode(), "dropped": entry.dropped})


def entries_of(node: str, body: bytes) -> list[Entry]:
    """Return the entries that a node published.

    Raises:
        ValueError: they are none.
    """
    return [_entry(node, each) for each in _ITEMS.validate_json(body)]


def kept_entry(value: bytes) -> tuple[int, Entry]:
    """Return when an entry was dropped, in milliseconds of the server's clock and 0 if it was not, and the entry.

    Raises:
        ValueError: it is of another form.
    """
    node, since, item = value.split(b" ", 2)
    return int(since), _entry(node.decode(), _ITEM.validate_json(item))


def refs_of(body: bytes) -> list[str]:
    """Return the refs that left.

    Raises:
        ValueError: they are none.
    """
    return _REFS.validate_json(body)


def _entry(node: str, item: _Item) -> Entry:
    _META.validate_python(from_json(item["meta"], allow_inf_nan=False))
    return Entry(item["ref"], node, item["user"], item["meta"].encode(), item["dropped"])


def kept(entry: bytes) -> tuple[int, bytes]:
    """Return when something was kept, in milliseconds of the server's clock, and what.

    Raises:
        ValueError: it is of another form.
    """
    time, _, payload = entry.partition(b" ")
    return int(time), payload


def kept_publication(entry: bytes, room: str, position: Position) -> Publication:
    """Return what was kept in the stream of a room.

    Raises:
        ValueError: it is no publication.
    """
    header, body = read(kept(entry)[1])
    if header["k"] != "message":
        raise ValueError(f"it is {header['k']!r}")
    return publication_of(header, body, "room", room).at(position)

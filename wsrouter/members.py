"""What the members of a room are told of each other.

Every device of a user (every connection) has an entry, which a random text of its own stands for: its ref. Members
learn of them by two frames. ``$presence`` comes on join, and says who is here:

    {"type":"$presence","room":"chat","data":{"count":2,"members":{"u7":{"Xk2":{"status":"away"}},"u8":{"Qa9":{}}}}}

``$presence_diff`` says who came and who went, with what was known of them:

    {"type":"$presence_diff","room":"chat","data":{"join":{"u8":{"Qa9":{}}},"leave":{"u7":{"Xk2":{"status":"away"}}}}}

A client applies a diff by setting ``members[user][ref]`` for each entry of ``join``, also where there is one already
(what is known of the device has changed), by deleting ``members[user][ref]`` for each of ``leave``, and by deleting a
user who has no entry left. It has the same members as everybody then. The state that a newcomer gets is what the
others have been told too: its own entry comes with the next diff.

Users without an id share the empty one, ``""``. Above 500 devices there are no members, only their number: a
``$presence`` without ``members``, again and again. When it falls to 400, a ``$presence`` has them again.
"""

from collections.abc import Iterable, Mapping, Sized
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple, TypeAlias, cast

from pydantic_core import from_json

from wsrouter.brokers.base import Entry
from wsrouter.codecs import dump

ANONYMOUS: Final = ""
"""The user of connections whose user has no id."""

MAX_META_BYTES: Final = 1024
"""Most that is known of one device, in bytes of JSON."""

Meta: TypeAlias = Mapping[str, object]
"""What ``join(room, presence={...})`` gave: a JSON object."""


@dataclass(frozen=True, slots=True)
class Member:
    """A user who is in a room, on whatever node; or one connection whose user has no id."""

    user: str
    """Id of the user; empty for a connection without one."""

    devices: Mapping[str, Meta] = field(hash=False)
    """Mapping of ref, which stands for a connection, to what ``join(room, presence={...})`` gave for it."""


class Notice(NamedTuple):
    """A frame for all members of a room."""

    type: Literal["$presence", "$presence_diff"]
    data: Mapping[str, object]


class Device(NamedTuple):
    """A connection as others see it."""

    user: str
    json: bytes
    """What is known of it, as it was given: Python's 1 and True are equal, JSON's are not."""
    meta: Meta


def device_of(user: str | None, meta: Meta) -> Device:
    """Return the device of a user, ``None`` for nobody, with what is known of it.

    Raises:
        ValueError: the user or ``meta`` can't be written as JSON, or ``meta`` has more than 1 KiB.
    """
    dump(user)
    json = dump(dict(meta))
    if len(json) > MAX_META_BYTES:
        raise ValueError(f"presence has {len(json)} bytes as JSON: at most {MAX_META_BYTES} for one device")
    return Device(user or ANONYMOUS, json, from_json(json))


Heard: TypeAlias = tuple[Entry, Device]
"""What another node says of a device of its own."""


def readable(entries: Iterable[Entry]) -> list[Heard]:
    """Return entries, each with its device, without those whose ``meta`` is no JSON object, or too large."""
    found: list[Heard] = []
    for entry in entries:
        with suppress(ValueError):
            meta: object = from_json(entry.meta)
            if isinstance(meta, dict) and len(entry.meta) <= MAX_META_BYTES:
                found.append((entry, Device(entry.user, entry.meta, cast(Meta, meta))))
    return found


def grouped(devices: Iterable[tuple[str, Device]]) -> dict[str, dict[str, Meta]]:
    """Return devices, each with its ref, as frames have them: by user, and by ref."""
    members: dict[str, dict[str, Meta]] = {}
    for ref, device in devices:
        members.setdefault(device.user, {})[ref] = device.meta
    return members


def listed(devices: Iterable[tuple[str, Device]]) -> list[Member]:
    """Return devices, each with its ref, as `Hub.presence` has them: by user, and each of no user by itself."""
    members = grouped(devices)
    alone = members.pop(ANONYMOUS, {})
    return [
        *(Member(user, devices) for user, devices in members.items()),
        *(Member(ANONYMOUS, {ref: meta}) for ref, meta in alone.items()),
    ]


def count(members: Mapping[str, Sized]) -> int:
    """Return the number of users, each connection of no user counted as one."""
    return len(members) + (len(members[ANONYMOUS]) - 1 if ANONYMOUS in members else 0)

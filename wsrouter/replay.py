"""What a member of a room with history is sent when it joins, and publications as members get them."""

from collections.abc import Iterable
from typing import Final

from wsrouter.brokers.base import Publication
from wsrouter.codecs import dump
from wsrouter.connection import Connection
from wsrouter.history import Position, Recovery
from wsrouter.joining import Newcomer
from wsrouter.runs import Prepared, Run

SKIP: Final = "$skip"


def prepared(publication: Publication) -> Prepared:
    """Return a publication as it is written for those who get it."""
    return Prepared(
        publication.type,
        publication.data,
        publication.name if publication.target == "room" else None,
        publication.offset,
        publication.frame,
        None if publication.key is None else (publication.type, publication.key),
    )


def skipped(publication: Publication) -> Prepared:
    """Return what stands for a publication with those who don't get it, so that they see no hole."""
    return Prepared(SKIP, None, publication.name, publication.offset)


def joined(room: str, stand: Position, *, recovered: bool = False, count: int = 0) -> Prepared:
    """Return the ``$joined`` frame: where who gets it stands, and whether ``count`` publications are all it missed."""
    data = {"epoch": stand.epoch, "offset": stand.offset, "recovered": recovered, "count": count}
    return Prepared("$joined", dump(data), room)


def run_of(publications: Iterable[Prepared], room: str | None) -> Run:
    """Return publications as a run of their own, for some of the connections of a room or a user."""
    run = Run(room, "disconnect")
    for each in publications:
        run.add(each)
    return run


async def replay(newcomer: Newcomer, recovery: Recovery[Publication]) -> None:
    """Send ``$joined`` and what was missed, as fast as the client reads."""
    connection = newcomer.connection
    stand, count = Position(recovery.epoch, recovery.offset), len(recovery.publications)
    first = joined(newcomer.room, stand, recovered=recovery.recovered, count=count)
    await connection.write(first.encode(connection.codec))
    for publication in recovery.publications:
        if newcomer.turned_back:
            return
        await connection.write(for_member(publication, connection).encode(connection.codec))


def caught_up(newcomer: Newcomer) -> Run:
    """Return what members got since a newcomer asked what it missed."""
    room = newcomer.room
    return run_of(
        (
            joined(room, each) if isinstance(each, Position) else for_member(each, newcomer.connection)
            for each in newcomer.live
        ),
        room,
    )


def for_member(publication: Publication, connection: Connection) -> Prepared:
    """Return what one member gets of a publication that has a place in the stream."""
    excluded = publication.excludes(connection.id, connection.user_id)
    return skipped(publication) if excluded else prepared(publication)

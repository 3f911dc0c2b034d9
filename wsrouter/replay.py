"""What a member of a room with history is sent when it joins, and publications as members get them."""

from collections.abc import Iterable
from typing import Final

from wsrouter.brokers.base import Publication
from wsrouter.codecs import dump
from wsrouter.connection import Connection
from wsrouter.history import Recovery
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


def run_of(publications: Iterable[Prepared], room: str) -> Run:
    """Return publications as a run of their own, for some connections of a room with history."""
    run = Run(room, "disconnect")
    for each in publications:
        run.add(each)
    return run


async def replay(newcomer: Newcomer, recovery: Recovery[Publication]) -> None:
    """Send ``$joined`` and what was missed, as fast as the client reads."""
    connection = newcomer.connection
    joined = {
        "epoch": recovery.epoch,
        "offset": recovery.offset,
        "recovered": recovery.recovered,
        "count": len(recovery.publications),
    }
    await connection.write(connection.codec.publication("$joined", dump(joined), newcomer.room))
    for publication in recovery.publications:
        if newcomer.turned_back:
            return
        await connection.write(for_member(publication, connection).encode(connection.codec))


def for_member(publication: Publication, connection: Connection) -> Prepared:
    """Return what one member gets of a publication that has a place in the stream."""
    excluded = publication.excludes(connection.id, connection.user_id)
    return skipped(publication) if excluded else prepared(publication)

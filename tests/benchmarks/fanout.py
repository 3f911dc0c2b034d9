"""The workload of a room with many members, all of which read."""

import asyncio
from typing import Final

from tests.benchmarks.clients import masked
from tests.benchmarks.connections import WARM_UP
from tests.benchmarks.figures import DELIVERIES, P99, Figures, Scale, p99
from tests.benchmarks.room import open_room
from tests.benchmarks.servers import TICKS, Running

MESSAGE: Final = masked(b'{"type":"publish","data":{"id":1234567,"text":"aaaaaaaaaaaa"}}')


async def fan_out(server: Running, path: str, scale: Scale, *, outstanding: int = 1, deflate: bool = False) -> Figures:
    """Publish to all members of a room, and again when a publication has reached them all.

    Args:
        outstanding: publications at a time.
        deflate: whether members negotiate permessage-deflate.
    """
    async with open_room(server, path, scale.members, deflate=deflate) as room:
        room.keep_publishing(MESSAGE, outstanding)
        await asyncio.sleep(WARM_UP)
        room.delays.clear()
        cpu = server.cpu()
        await asyncio.sleep(scale.seconds)
        used = server.cpu() - cpu
        delays = room.delays.copy()
        room.rest()
        await room.finish()
    return {DELIVERIES: len(delays) / max(used, 1 / TICKS), P99: p99(delays, len(delays)) * 1000}

"""The order to disconnect a user: now, and for a minute."""

import asyncio
from dataclasses import replace
from time import monotonic
from typing import Final

from wsrouter.brokers.base import Publication
from wsrouter.testing.brokers.setting import Setting, same

BANNED: Final = Publication("disconnect", "u1", "banned: spam €", code=4403)
REPLACED: Final = Publication("disconnect", "u1", "replaced", code=4409, only=frozenset({"c1", "c-2"}))


class Disconnects(Setting):
    """Who is disconnected is disconnected everywhere, also where they are about to come in."""

    async def test_a_disconnect_comes_to_who_subscribed_to_the_user(self) -> None:
        """Code, reason and connections arrive on every node that subscribed to the user, and on no other."""
        async with self.cluster(3) as (a, b, c):
            await a.subscribe("u1", "user")
            await b.subscribe("u1", "user")
            await c.subscribe("u2", "user")
            await c.subscribe("u1", "room")
            for order in (BANNED, REPLACED):
                await a.broker.publish(order)
            await self.fence(a, b, c)
            for peer in (a, b):
                heard = [replace(each, age=0.0) for each in peer.delivered]
                same(heard, [BANNED, REPLACED], f"what {peer} heard")
            same(c.delivered, [], f"what {c} heard, which did not subscribe to the user")

    async def test_a_disconnect_is_kept_for_who_subscribes_later(self) -> None:
        """A node that subscribes to the user afterwards is told all that was ordered, before `subscribe` returns."""
        async with self.cluster(3) as (a, b, c):
            await a.subscribe("u1", "user")
            for order in (BANNED, REPLACED):
                await a.broker.publish(order)
            await b.subscribe("u1", "user")
            heard = [replace(each, age=0.0) for each in b.delivered]
            same(heard, [BANNED, REPLACED], f"what {b} was told before subscribe() returned")
            await c.subscribe("u2", "user")
            await c.subscribe("u1", "room")
            await self.fence(a, b, c)
            same(c.delivered, [], f"what {c} heard, which subscribed to another user, and to a room")
            same(len(a.delivered), 2, f"orders that {a} heard, which had subscribed before")

    async def test_a_disconnect_that_was_kept_tells_its_age(self) -> None:
        """`Publication.age` says how long ago it was ordered, so that who signed in since is not meant."""
        async with self.cluster(2) as (a, b):
            before = monotonic()
            await a.broker.publish(BANNED)
            ordered = monotonic()
            await asyncio.sleep(0.5)
            least = monotonic() - ordered
            await b.subscribe("u1", "user")
            most = monotonic() - before
            ages = [each.age for each in b.delivered]
            same(len(ages), 1, f"orders that {b} was told")
            assert least - 0.1 <= ages[0] <= most + 0.1, f"the age is {ages[0]:g} s, expected {least:.2f} to {most:.2f}"

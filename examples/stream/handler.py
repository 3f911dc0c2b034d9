"""The two connections of a page: one over which texts come, one that watches the generators that write them."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Annotated

from dependency_injector.wiring import Provide

from examples.stream.composer import Composer
from examples.stream.container import Container
from examples.stream.ledger import Ledger
from examples.stream.messages import Generators, Ready, Write
from wsrouter import WebSocketHandler, on

TURN_WORDS = 1000
"""Words that are passed over at a time, so that other connections have their turn."""
WATCH_INTERVAL = 0.1
"""Seconds between two looks at the counts."""


@dataclass
class Writer(WebSocketHandler):
    """Writes several texts at once, each by a generator of its own."""

    max_in_flight = 4

    composer: Annotated[Composer, Provide[Container.composer]]
    ledger: Annotated[Ledger, Provide[Container.ledger]]

    async def on_connect(self) -> Ready:
        return Ready(at_once=self.max_in_flight)

    @on
    async def write(self, message: Write) -> AsyncIterator[str]:
        # A `$cancel`, or a client that leaves, ends the generator at its `yield` or where it waits: as a
        # CancelledError, which passes through the block that counts.
        with self.ledger.entry():
            words = self.composer.compose(message.prompt, seed=message.seed, words=message.words)
            for number, word in enumerate(words):
                if number < message.after:
                    if number % TURN_WORDS == 0:
                        await asyncio.sleep(0)
                    continue
                self.ledger.note_word()
                yield word
                if message.pace is not None:
                    await asyncio.sleep(1 / message.pace)


@dataclass
class Watch(WebSocketHandler):
    """Tells what becomes of the generators, for as long as somebody looks."""

    ledger: Annotated[Ledger, Provide[Container.ledger]]

    async def on_connect(self) -> AsyncIterator[Generators]:
        told = None
        while True:
            counts = self.ledger.counts()
            if counts != told:
                yield counts
                told = counts
            await asyncio.sleep(WATCH_INTERVAL)

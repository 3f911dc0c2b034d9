"""The prices: one instance for each connection."""

from dataclasses import dataclass
from typing import Annotated

from dependency_injector.wiring import Provide

from examples.ticker.container import Container
from examples.ticker.market import ROOM, Market
from examples.ticker.messages import Board
from wsrouter import WebSocketHandler


@dataclass
class Ticker(WebSocketHandler):
    """Somebody who looks at the prices."""

    market: Annotated[Market, Provide[Container.market]]

    async def on_connect(self) -> Board:
        await self.join(ROOM)
        return Board(connection=self.connection.id, quotes=self.market.quotes())

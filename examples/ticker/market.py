"""The market: shares of companies that there are not, at prices that chance makes."""

import asyncio
import math
import random
import time
from collections import deque
from typing import Final

from examples.ticker.messages import Price, Quote
from wsrouter import Hub

ROOM: Final = "prices"
INTERVAL = 0.025
"""Seconds between two prices of a share."""
KEPT_EVERY = 10
"""Of so many prices of a share one is kept, so that a newcomer sees the last minute."""
KEPT = 240

COMPANIES = {
    "ACO": "Acorn Works",
    "BLU": "Bluebird Air",
    "CIN": "Cinder Steel",
    "DEL": "Delta Canals",
    "ELM": "Elm & Oak",
    "FJO": "Fjord Line",
    "GLA": "Glasswing",
    "HAR": "Harbour Trust",
    "IRI": "Iris Optics",
    "JUN": "Juniper Foods",
    "KES": "Kestrel Motors",
    "LAN": "Lantern Power",
    "MIR": "Mirador",
    "NOR": "Northlight",
    "OPA": "Opal Mining",
    "PIN": "Pinecone Toys",
    "QUA": "Quarry Stone",
    "RIV": "Riverbed",
    "SAL": "Salt & Sons",
    "TID": "Tidewater",
    "UMB": "Umber Paints",
    "VEL": "Velvet Mills",
    "WIL": "Willow Health",
    "YAR": "Yarrow Tea",
}


class Share:
    """One of the shares; its price goes up and down around what it cost when the market opened."""

    def __init__(self, symbol: str, name: str, chance: random.Random) -> None:
        self._symbol = symbol
        self._name = name
        self._chance = chance
        self._opening = round(math.exp(chance.uniform(2.5, 6)), 2)
        self._rise = 0.0
        self._serial = 0
        self._past: deque[tuple[int, float]] = deque(maxlen=KEPT)

    def move(self, at: int) -> Price:
        """Return the next price."""
        self._rise += self._chance.gauss(0, 0.001) - 0.0005 * self._rise
        price = round(self._opening * math.exp(self._rise), 2)
        if self._serial % KEPT_EVERY == 0:
            self._past.append((at, price))
        self._serial += 1
        return Price(symbol=self._symbol, price=price, serial=self._serial, at=at)

    def quote(self) -> Quote:
        """Return what a newcomer has to know."""
        return Quote(symbol=self._symbol, name=self._name, opening=self._opening, past=list(self._past))


class Market:
    """All the shares.

    Args:
        chance: what moves the prices.
    """

    def __init__(self, chance: random.Random | None = None) -> None:
        chance = chance or random.Random()
        self._shares = [Share(symbol, name, chance) for symbol, name in COMPANIES.items()]

    def move(self, at: int) -> list[Price]:
        """Return the next price of every share, all of the same time."""
        return [share.move(at) for share in self._shares]

    def quotes(self) -> list[Quote]:
        """Return what a newcomer has to know."""
        return [share.quote() for share in self._shares]

    async def run(self, hub: Hub) -> None:
        """Publish prices until cancelled: about a thousand a second, as fast for each client as it reads."""
        while True:
            for price in self.move(time.time_ns() // 1_000_000):
                await hub.broadcast(ROOM, price)
            await asyncio.sleep(INTERVAL)

"""The broker of one process."""

from wsrouter.brokers.base import Broker, Deliver, Publication


class MemoryBroker(Broker):
    """Delivers within this process, before `publish` returns. It never fails and keeps nothing."""

    local = True

    def __init__(self) -> None:
        self._deliver: Deliver | None = None

    async def start(self, deliver: Deliver) -> None:
        self._deliver = deliver

    async def aclose(self) -> None:
        self._deliver = None

    async def publish(self, publication: Publication) -> None:
        if self._deliver is not None:
            self._deliver(publication)

    async def subscribe(self, target: str, name: str) -> None:
        """Nothing to do: every publication of this process is its own."""

    async def unsubscribe(self, target: str, name: str) -> None:
        """Nothing to do."""

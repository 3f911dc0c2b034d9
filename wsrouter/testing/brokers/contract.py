"""All that a broker promises, one test for each promise."""

from wsrouter.testing.brokers.attendance import Attendance
from wsrouter.testing.brokers.delivery import Delivery
from wsrouter.testing.brokers.disconnects import Disconnects
from wsrouter.testing.brokers.failures import Failures
from wsrouter.testing.brokers.holes import Holes
from wsrouter.testing.brokers.life import Life
from wsrouter.testing.brokers.names import Names
from wsrouter.testing.brokers.slots import Slots
from wsrouter.testing.brokers.streams import Streams


class BrokerContract(Delivery, Names, Disconnects, Streams, Attendance, Slots, Life, Holes, Failures):
    """The contract of `wsrouter.brokers.Broker` as tests: subclass it, and have your runner run the subclass.

    ``nodes`` is all that it needs. What else a subclass gives (``cut``, ``silence``, ``mend``, ``rewind``, ``forge``,
    ``ttl``) lets it test what becomes of a broker whose server is away; a test that needs what is not given raises
    `unittest.SkipTest` with a sentence that says so, which pytest and unittest take for a skip.

    Every test is a coroutine function ``test_...`` without parameters, on an instance of its own: pytest runs it with
    pytest-asyncio or anyio, `unittest.IsolatedAsyncioTestCase` beside it as a second base class, or a loop of yours.
    """

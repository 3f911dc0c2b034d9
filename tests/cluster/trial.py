"""One fault on one cluster, and what came of it."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from tests.cluster.audit import audit
from tests.cluster.clients import Wait
from tests.cluster.cluster import Cluster, start, traffic
from tests.cluster.faults import Fault
from tests.cluster.lag import Lag, measured
from tests.cluster.outage import well_after
from tests.cluster.probes import Probes, probing
from tests.cluster.promises import broken, late
from tests.cluster.results import Result


async def trial(fault: Fault, directory: Path, tell: Callable[[str], None]) -> Result:
    """Let a fault happen while messages flow, and judge what clients saw.

    Args:
        fault: what goes wrong.
        directory: where the nodes' logs go, and what Redis saves.
        tell: is told how far it is.
    """
    tell("nodes start")
    async with (
        start(fault.setting, directory) as cluster,
        traffic(cluster, fault.setting, tell),
        probing(cluster.nodes) as probes,
        measured() as lag,
    ):
        cluster.tell = tell
        await asyncio.sleep(1)
        tell("it happens")
        cluster.fault_began = time.monotonic()
        await fault.happen(cluster)
        cluster.fault_ended = time.monotonic()
        tell("it is over")
        await asyncio.sleep(fault.after)
        lasted = time.monotonic() - cluster.began
    return _judge(fault, cluster, probes, lag, lasted)


def _judge(fault: Fault, cluster: Cluster, probes: Probes, lag: Lag, lasted: float) -> Result:
    sent = cluster.sent
    steady = [log for client in cluster.steady for log in client.all_logs]
    result = Result(
        fault,
        audit(cluster.logs, sent),
        rate=len(sent) / lasted,
        waits=[wait for link in cluster.links for wait in link.waits if _counts(cluster, wait)],
        longest=max(each.took for each in sent if not cluster.excuses(each.node, each.at, each.answered)),
        well=well_after(steady, sent, cluster.fault_ended),
        noticed=max((probes.noticed(node, cluster.fault_began) for node in fault.unnoticed), default=0.0),
        ready=probes.ready(cluster.fault_ended),
        lag=lag.longest,
        closes=Counter(code for link in cluster.links for _, code in link.closes),
    )
    result.wrong.extend(broken(result, cluster))
    result.slow.extend(late(result, cluster))
    return result


def _counts(cluster: Cluster, wait: Wait) -> bool:
    return wait.at > cluster.began and not cluster.excuses(wait.node, wait.at, wait.at + wait.took)

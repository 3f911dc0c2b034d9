"""Three servers on one Redis, and a page on which things go wrong.

``python -m examples.cluster`` starts a Redis of its own, three uvicorn processes, and a small control process that
serves the page. On the page six clients are connected to the three nodes, and write once a second into two rooms. You
stop, kill or freeze a node or the Redis, and watch what each client is told.

- ``node.py`` is the application, as you would write yours: a hub on a `RedisBroker`, one handler, the routes for
  probes. Everything else is there to break it.
- ``processes.py``, ``supervisor.py`` and ``watchdog.py`` start the processes, look after them, and leave none behind.
- ``control.py`` and ``app.py`` are the control process.

Worth a try:

- **Kill a node.** Its clients go to another one, which knows what they missed: ``recovered``, with the count. Whoever
  comes back within the grace never left, for the others.
- **Freeze the Redis** for ten seconds. Within a node ticks still arrive; orders are refused as ``unavailable``. After
  that ticks have a ``$gap``, where nobody knows how many are missing; orders have none, they are recovered.
- **Kill the Redis** and start it. It keeps nothing on disk, so what was kept is gone, and nobody pretends otherwise:
  ``recovered: false``.
- **Restart all nodes**, one after the other. Watch who is here: nobody leaves.
"""

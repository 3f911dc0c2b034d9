"""Notifications for each user, on all their devices, sent from HTTP routes and from a worker process.

``python -m examples.notifications`` serves them from one process, the worker included. With a Redis the worker is a
process of its own, on whatever machine, and there may be as many servers as you like::

    python -m examples.notifications --redis redis://127.0.0.1:6379/0
    python -m examples.notifications.worker --redis redis://127.0.0.1:6379/0

**The table is the truth, and the hub brings the news.** A notification is stored first, then sent with
``hub.send_to_user``, which is at most once. A device that was away, or is told of a hole by ``$gap``, loads what is
stored, and shows nothing twice, since a notification has an id. So a notification that was stored can be late, but
not lost.

A room for each user with a ``History`` would be the other way: a device that comes back would get just what it missed.
But a history is short and may be forgotten, and then the table has to be read all the same. Where nobody reads
thousands of lines for one that is new, the second way back is not worth having. In a chat room it is: see
``examples/cluster``.

What can be late: a server that is killed between storing and sending has told nobody. The devices find it when they
load the next time. The worker does better: it marks an export as done after it told of it, and one that took its place
would tell again.
"""

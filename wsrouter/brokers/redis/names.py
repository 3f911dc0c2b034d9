"""What rooms and users are called in Redis: by a digest of their name, never by the name."""

import re
from base64 import urlsafe_b64encode
from hashlib import blake2b
from typing import Final

from wsrouter.brokers.base import Target
from wsrouter.errors import ConfigurationError

_PREFIX: Final = re.compile(r"[!-z|~]{1,64}", re.ASCII)


class Names:
    """Names of keys and channels.

    All that belongs to one room, or to one user, has the same digest within braces: in a cluster that makes it one
    slot (https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/#hash-tags).

    Args:
        prefix: begins every name.
        database: number of the database: channels, unlike keys, are not apart by themselves.

    Raises:
        ConfigurationError: a prefix of another form.
    """

    def __init__(self, prefix: str, database: int) -> None:
        if not _PREFIX.fullmatch(prefix):
            raise ConfigurationError(
                f"RedisBroker(prefix={prefix!r}): expected 1 to 64 letters, digits and signs, without blanks and braces"
            )
        self._prefix = prefix.encode()
        self._channels = {
            # The number between two colons, or that of one prefix could be taken for the end of another.
            target: b"%b%b:%d:" % (self._prefix, target.encode(), database)
            for target in ("room", "user", "node")
        }
        self._stream = self._prefix + b"stream:"
        self._kept = self._prefix + b"kept:"
        self.everyone = self._channels["node"] + b"{all}"
        """Channel that all nodes are subscribed to."""
        self.nodes = self._prefix + b"nodes:{nodes}"
        """Key of the nodes that are there."""

    def channel(self, target: Target, name: str) -> bytes:
        """Return the channel of a room or a user."""
        return self._channels[target] + _digest(name)

    def node(self, node: str, number: int = 0) -> bytes:
        """Return a channel of a node's own; in a cluster it needs one in a slot of every server."""
        return b"%b{%b:%d}" % (self._channels["node"], node.encode(), number)

    def key(self, kind: str, name: str) -> bytes:
        """Return the key of something that is kept of a room, a user or a name of slots."""
        return b"%b%b:%b" % (self._prefix, kind.encode(), _digest(name))

    def stream(self, room: str) -> tuple[bytes, bytes, bytes]:
        """Return the keys of a room's stream, of where it is and of what is kept, and the channel of the room."""
        digest = _digest(room)
        return self._stream + digest, self._kept + digest, self._channels["room"] + digest


def _digest(name: str) -> bytes:
    """Return 144 bits that stand for a name, within braces. Any text has some, also one that is no UTF-8."""
    digest = blake2b(name.encode("utf-8", "surrogatepass"), digest_size=18)
    return b"{%b}" % urlsafe_b64encode(digest.digest())

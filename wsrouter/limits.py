"""The limits of a connection."""

from dataclasses import dataclass, fields

from wsrouter.errors import ConfigurationError


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds of one connection; set per router (``limits=``) or per handler class (``limits = ...``).

    Raises:
        ConfigurationError: a limit is not positive.
    """

    message_size: int = 64 * 1024
    """Bytes of one received message; a larger one closes 1009."""

    inbox_messages: int = 64
    """Messages that wait while one is handled; a full inbox stops reading."""

    inbox_bytes: int = 256 * 1024
    """Bytes of the messages that wait."""

    inbox_full: float = 10.0
    """Seconds that a full inbox may stop reading before the connection is closed with 4529. Half of the
    server's ping timeout (uvicorn: 20 s), since pings are not answered meanwhile."""

    outbox_bytes: int = 1024 * 1024
    """Bytes that wait to be sent; see `Connection.pending_bytes`."""

    outbox_frames: int = 1024
    """Frames that wait to be sent."""

    handshake: float = 10.0
    """Seconds for guards, constructor and the dependencies of ``on_connect`` together; then 503."""

    send: float = 10.0
    """Seconds that a send waits for a client that does not read; then the client is gone (4508)."""

    close: float = 2.0
    """Seconds for a close frame to get out and be answered; then the connection is abandoned."""

    on_disconnect: float = 5.0
    """Seconds for ``on_disconnect``, again for the end of the connection scope, and again for the clean-up of a
    message that was cancelled because the client has left."""

    drain: float = 5.0
    """Seconds after the client left in which messages received before are still handled."""

    message_timeout: float | None = None
    """Seconds for one message method; ``None`` is no deadline. Streams have none."""

    rooms: int = 128
    """Rooms that one connection may join."""

    name_bytes: int = 255
    """Bytes of UTF-8 in the name of a room."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is None and field.name == "message_timeout":
                continue
            if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
                raise ConfigurationError(f"Limits({field.name}={value!r}): expected a number above zero")

"""The way straight to the socket: what `DirectTransport` promises, over real sockets."""

from typing import Any

from tests.support import connect, serve
from tests.uvicorn.serving import OURS, Recorder
from wsrouter.transports import framed


async def test_what_is_written_straight_to_the_socket_arrives() -> None:
    """Frames written to the transport and events sent through ASGI arrive in the order in which they were given."""
    app = Recorder(echoes=True)
    async with serve(app, ws=OURS, lifespan="off") as server, connect(server) as ws:
        await app.opened.wait()
        app.direct.write(framed("one") + framed(b"two"))
        assert [await ws.recv(), await ws.recv()] == ["one", b"two"]
        await ws.send("three")
        assert await ws.recv() == "three"


async def test_the_transport_is_paused_until_accept() -> None:
    """Nothing is to be written before the handshake is accepted."""
    seen: list[bool] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        transport = scope["extensions"]["wsrouter.transport"]["transport"]
        seen.append(transport.paused)
        await receive()
        await send({"type": "websocket.accept"})
        seen.append(transport.paused)
        await receive()
        seen.append(transport.paused)

    async with serve(app, ws=OURS, lifespan="off") as server:
        ws = await connect(server)
        await ws.close()
    assert seen == [True, False, True]

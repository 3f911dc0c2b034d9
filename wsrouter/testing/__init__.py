"""Testing handlers in process: over ASGI, without sockets, every wait with a deadline.

    async with WebSocketTestClient(app) as client:
        async with client.connect("/ws/chat/1") as ws:
            await ws.send(Say(text="hi"))
            said = await ws.receive(Said)

It shows what the application sends. What a server or a browser makes of it (a refused handshake, a lost
connection) is tested over a real server.
"""

from wsrouter.testing.client import Denied, TestConnection, Unexpected, WebSocketTestClient

__all__ = ["Denied", "TestConnection", "Unexpected", "WebSocketTestClient"]

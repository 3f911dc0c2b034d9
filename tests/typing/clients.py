"""The test client: a message that is expected comes back as one."""

from typing import Any, assert_type

from fastapi import FastAPI

from wsrouter import CloseInfo, Message
from wsrouter.testing import Denied, TestConnection, WebSocketTestClient


class Say(Message):
    text: str


class Said(Message, type="chat.said"):
    user: str
    text: str


async def chat(app: FastAPI) -> None:
    async with WebSocketTestClient(app, timeout=2) as client:
        assert_type(client, WebSocketTestClient)
        async with client.connect("/ws/chat/1", headers={"Origin": "https://app.example"}) as ws:
            assert_type(ws, TestConnection)
            await ws.send(Say(text="hi"), id=1)
            assert_type(await ws.receive(Said), Said)
            assert_type(await ws.receive(expect=Said, timeout=2), Said)
            assert_type((await ws.receive(Said)).user, str)
            assert_type(await ws.receive(), dict[str, Any])
            assert_type(await ws.call(Say(text="hi"), expect=Said), Said)
            assert_type(await ws.call(Say(text="hi")), dict[str, Any])
            assert_type(await ws.receive_frame(), str | bytes)
            assert_type(await ws.closed(), CloseInfo)
            assert_type(ws.subprotocol, str | None)


def denied(denial: Denied) -> None:
    assert_type(denial.status, int)
    assert_type(denial.headers["www-authenticate"], str)
    assert_type(denial.body, bytes)

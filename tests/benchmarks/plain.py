"""What a user of FastAPI writes by hand: the other side of `make bench`."""

from typing import Literal

from fastapi import FastAPI, WebSocket, WebSocketDisconnect
from pydantic import BaseModel

app = FastAPI()


class Text(BaseModel):
    id: int
    text: str


class Echo(BaseModel):
    type: Literal["echo"] = "echo"
    data: Text


@app.websocket("/echo")
async def echo(websocket: WebSocket) -> None:
    """The common way: ``receive_json``, validate, ``send_json``."""
    await websocket.accept()
    try:
        while True:
            message = Echo.model_validate(await websocket.receive_json())
            await websocket.send_json(message.model_dump())
    except WebSocketDisconnect:
        pass


@app.websocket("/echo-fast")
async def echo_fast(websocket: WebSocket) -> None:
    """The fast way: pydantic reads and writes the JSON."""
    await websocket.accept()
    try:
        while True:
            message = Echo.model_validate_json(await websocket.receive_text())
            await websocket.send_text(message.model_dump_json())
    except WebSocketDisconnect:
        pass


class Publish(BaseModel):
    type: Literal["publish"] = "publish"
    data: Text


class Note(BaseModel):
    type: Literal["note"] = "note"
    data: Text


members: list[WebSocket] = []


@app.websocket("/room")
async def room(websocket: WebSocket) -> None:
    """A member of the only room there is."""
    await websocket.accept()
    members.append(websocket)
    try:
        while True:
            await websocket.receive_text()
    except WebSocketDisconnect:
        pass
    finally:
        members.remove(websocket)


@app.websocket("/pub")
async def publish(websocket: WebSocket) -> None:
    """The loop over the members, with the message encoded only once."""
    await websocket.accept()
    try:
        while True:
            message = Publish.model_validate_json(await websocket.receive_text())
            text = Note(data=message.data).model_dump_json()
            for member in members.copy():
                await member.send_text(text)
    except WebSocketDisconnect:
        pass

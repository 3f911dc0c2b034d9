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

"""Whatever a client sends has one documented answer, and nobody else notices."""

import asyncio
import json
from datetime import date, timedelta
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Literal
from uuid import UUID

import pytest
from fastapi import FastAPI
from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from starlette.requests import HTTPConnection
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame, Opcode

from tests.bad_input_cases import CASES, INVALID_UTF8, PATHS, SECRET, Case, Closed, Error, Reply
from tests.support import connect, no_task_left, serve
from wsrouter import CloseInfo, Envelope, Message, WebSocketHandler, WebSocketRouter, on


class Echo(Message):
    text: str


class State(Enum):
    OPEN = "open"
    PAID = "paid"


class Line(BaseModel):
    sku: str
    count: int = Field(ge=1)


class Order(Message):
    lines: list[Line] = Field(max_length=10)
    due: date | None = None
    within: timedelta | None = None
    state: State = State.OPEN
    price: float = 0
    fee: Decimal = Decimal(0)
    key: UUID | None = None
    note: str = Field("", max_length=20)
    code: str = Field("A1", pattern=r"^[A-Z]\d$")


class Tree(Message):
    children: list["Tree"] = []


class Circle(BaseModel):
    kind: Literal["circle"]
    radius: float


class Square(BaseModel):
    kind: Literal["square"]
    side: float


class Strict(Message):
    model_config = ConfigDict(extra="forbid", strict=True)
    a: int


def even(value: int) -> int:
    """Refuse odd numbers as a validator does."""
    if value % 2:
        raise ValueError("give an even number")
    return value


class Neighbour(WebSocketHandler):
    @on
    async def echo(self, message: Echo) -> Echo:
        return message


class Speaker(Neighbour):
    """Speaks the envelope, and notes how its connections ended in the application's ``state.ends``."""

    @on
    async def order(self, message: Order) -> None: ...

    @on
    async def tree(self, message: Tree) -> None: ...

    @on("shape")
    async def draw(self, message: Circle | Square) -> None: ...

    @on
    async def strict(self, message: Strict) -> None: ...

    @on("anything")
    async def give_back(self, message: Any) -> Any:
        return message

    @on("sum")
    async def total(self, message: list[int]) -> int:
        return sum(message)

    @on("count")
    async def count(self, message: int) -> int:
        return message

    @on("ratio")
    async def ratio(self, message: float) -> float:
        return message

    @on("ages")
    async def ages(self, message: dict[str, int]) -> None: ...

    @on("even")
    async def halve(self, message: Annotated[int, AfterValidator(even)]) -> int:
        return message // 2

    async def on_disconnect(self, close: CloseInfo, http: HTTPConnection) -> None:
        http.app.state.ends.append(close)


class OpenSpeaker(WebSocketHandler):
    async def on_message(self, message: Envelope) -> list[Any]:
        return [message.type, message.data]


class RawJSON(WebSocketHandler):
    async def on_message(self, message: list[float]) -> str:
        return json.dumps({"sum": sum(message)})


class RawText(WebSocketHandler):
    async def on_message(self, message: str) -> str:
        return json.dumps({"length": len(message)})


class RawBytes(WebSocketHandler):
    async def on_message(self, message: bytes) -> str:
        return json.dumps({"length": len(message)})


@pytest.fixture
def app() -> FastAPI:
    """One handler of each sort."""
    app = FastAPI()
    app.state.ends = []
    router = WebSocketRouter()
    router.add_handler("/neighbour", Neighbour)
    router.add_handler("/envelope", Speaker)
    router.add_handler("/open", OpenSpeaker)
    router.add_handler("/raw/json", RawJSON)
    router.add_handler("/raw/text", RawText)
    router.add_handler("/raw/bytes", RawBytes)
    app.include_router(router)
    return app


async def echoes(ws: ClientConnection, text: str) -> None:
    """Check that the next frame of a connection is the answer to a message that is sent now."""
    await ws.send(json.dumps({"type": "echo", "id": text, "data": {"text": text}}))
    assert json.loads(await ws.recv()) == {"type": "echo", "id": text, "data": {"text": text}}


async def check_answer(ws: ClientConnection, case: Case) -> None:
    """Check that a case has been answered as the table says, and with that one frame."""
    answer = case.answer
    if isinstance(answer, Closed):
        with pytest.raises(ConnectionClosed):
            await ws.recv()
        assert ws.close_code == answer.code
        assert SECRET not in (ws.close_reason or "")
        return
    if isinstance(answer, Reply):
        assert json.loads(await ws.recv()) == answer.frame
    elif isinstance(answer, Error):
        frame = await ws.recv()
        check_error(json.loads(frame), answer)
        assert SECRET not in str(frame)
        assert len(frame) < 5000


def check_error(envelope: dict[str, Any], answer: Error) -> None:
    """Check each key of an ``$error`` frame."""
    error = envelope.pop("error")
    assert envelope == ({"type": "$error"} if answer.id is None else {"type": "$error", "id": answer.id})
    details = error.pop("details", None)
    assert error.pop("message")
    assert error == {"code": answer.code, "retry": False}
    if answer.loc is None:
        assert details is None
    else:
        assert details[0]["loc"] == list(answer.loc)
        assert all(detail.keys() == {"type", "loc", "msg"} for detail in details)


async def check_it_lives(ws: ClientConnection, path: str, case: Case) -> None:
    """Check that the next frame of a connection is the answer to another message."""
    if path == "/envelope":
        await echoes(ws, "still here")
    elif path == "/open":
        await ws.send('{"type":"still","id":2,"data":"here"}')
        assert json.loads(await ws.recv()) == {"type": "$ok", "id": 2, "data": ["still", "here"]}
    else:
        await ws.send(case.frame)
        await check_answer(ws, case)


def test_the_table_is_whole() -> None:
    """There are 200 cases at least, ten of each class, and none twice."""
    assert all(len(cases) >= 10 for cases in CASES.values())
    assert sum(map(len, CASES.values())) >= 200
    assert PATHS.keys() <= CASES.keys()
    for cases in CASES.values():
        assert len({case.what for case in cases}) == len({str(case.frame) for case in cases}) == len(cases)


@pytest.mark.parametrize("name", CASES)
async def test_bad_input_has_one_answer(app: FastAPI, name: str, subtests: pytest.Subtests) -> None:
    """A frame has the answer of the table, the connection lives unless that is a close, and nobody else notices."""
    path = PATHS.get(name, "/envelope")
    async with serve(app) as server, connect(server, "/neighbour") as neighbour:
        await echoes(neighbour, "hello")
        tasks = asyncio.all_tasks()
        for case in CASES[name]:
            with subtests.test(case.what):
                async with connect(server, path) as ws:
                    await ws.send(case.frame)
                    await check_answer(ws, case)
                    if not isinstance(case.answer, Closed):
                        await check_it_lives(ws, path, case)
                    await echoes(neighbour, case.what)
                await no_task_left(but=tasks)
            if path == "/envelope":
                end = app.state.ends.pop()
                expected = (case.answer.code, "server") if isinstance(case.answer, Closed) else (1000, "client")
                assert (end.code, end.by) == expected
                assert app.state.ends == []


@pytest.mark.logs_errors  # websockets-sansio logs a traceback of its own
async def test_invalid_utf8_harms_nobody_else(app: FastAPI, subtests: pytest.Subtests) -> None:
    """The server itself ends a connection that sends a text which is no UTF-8; the handler is told once."""
    async with serve(app) as server, connect(server, "/neighbour") as neighbour:
        await echoes(neighbour, "hello")
        tasks = asyncio.all_tasks()
        for what, payload in INVALID_UTF8.items():
            with subtests.test(what):
                async with connect(server, "/envelope") as ws:
                    await echoes(ws, "before")
                    ws.transport.write(Frame(Opcode.TEXT, payload).serialize(mask=True))
                    await ws.wait_closed()
                    assert ws.close_code in {1007, 1006}
                    await echoes(neighbour, what)
                await no_task_left(but=tasks)
            assert len(app.state.ends) == 1
            app.state.ends.clear()


async def test_details_are_few(app: FastAPI) -> None:
    """A payload hears of some of many mistakes, a large one of the first in a collection, or of how many there are."""
    async with serve(app) as server, connect(server, "/envelope") as ws:

        async def error(type: str, data: Any) -> Any:
            await ws.send(json.dumps({"type": type, "data": data}))
            return json.loads(await ws.recv())["error"]

        some = await error("sum", ["x"] * 200)
        many = await error("sum", ["x"] * 12000)
        fields = await error("strict", {"a": 0, **{str(number): 0 for number in range(5000)}})
    assert [detail["loc"] for detail in some["details"]] == [[place] for place in range(32)]
    assert [detail["loc"] for detail in many["details"]] == [[0]]
    assert fields == {"code": "invalid", "message": "The message is not valid, in 5000 places", "retry": False}

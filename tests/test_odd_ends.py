"""What few do and everybody survives: odd validators, details, statuses, names and starts."""

import asyncio
import functools
import json
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from typing import Any

import pytest
from dependency_injector import containers, providers
from fastapi import FastAPI, HTTPException
from pydantic import BaseModel, ConfigDict, field_validator
from pydantic.alias_generators import to_camel
from starlette.responses import JSONResponse

from wsrouter import (
    ConfigurationError,
    Deny,
    Disconnect,
    Hub,
    Message,
    RoomOptions,
    WebSocketError,
    WebSocketHandler,
    WebSocketRouter,
    on,
)
from wsrouter.codecs import JSONCodec
from wsrouter.testing import Denied, WebSocketTestClient


class Look(Message):
    key: str

    @field_validator("key")
    @classmethod
    def known(cls, value: str) -> str:
        return {"a": "A"}[value]


class Hello(Message):
    pass


def application(cls: type[WebSocketHandler], **options: Any) -> FastAPI:
    router = WebSocketRouter(**options)
    router.add_handler("/", cls)
    app = FastAPI()
    app.include_router(router)
    return app


class Quiet(WebSocketHandler):
    pass


async def status_behind(guard: Callable[..., Any]) -> int:
    """Return the HTTP status with which a guard denies."""
    async with WebSocketTestClient(application(Quiet, guards=[guard])) as client:
        with pytest.raises(Denied) as denied:
            async with client.connect("/"):
                pass
    return denied.value.status


class Address(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)

    zip_code: str


class Ship(Message):
    to: Address


async def test_a_model_in_a_message_is_written_by_its_aliases() -> None:
    """As it is in a list, in an answer of an HTTP route, and as it is read: what is sent can be sent back."""

    class Post(WebSocketHandler):
        @on
        async def ship(self, message: Ship) -> Ship:
            await self.send(message)
            return message

    ship = Ship(to=Address(zip_code="1"))
    async with WebSocketTestClient(application(Post)) as client, client.connect("/") as ws:
        assert await ws.call(ship, expect=Ship) == ship
        assert json.loads(JSONCodec().message(ship))["data"] == {"to": {"zipCode": "1"}}


@pytest.mark.parametrize("code", [4000.0, 4000.5, "4000", None, True])
async def test_a_close_code_that_is_no_integer(code: Any) -> None:
    """It is refused before anything is closed, so the connection goes on."""

    class Closing(WebSocketHandler):
        @on
        async def end(self, message: Hello) -> str:
            with pytest.raises(ValueError, match="no endpoint may send"):
                await self.close(code)
            with pytest.raises(ValueError, match="no endpoint may send"):
                raise Disconnect(code)
            return "open"

    async with WebSocketTestClient(application(Closing)) as client, client.connect("/") as ws:
        assert (await ws.call(Hello()))["data"] == "open"


async def yields_false() -> AsyncGenerator[bool]:
    yield False


def returns_a_response() -> JSONResponse:
    return JSONResponse({}, 403)


def returns_a_class_of_exceptions() -> Any:
    return Deny


def returns_a_generator() -> Any:
    return (Deny(each) for each in (401, 403))


@pytest.mark.logs_errors
@pytest.mark.parametrize(
    "guard", [yields_false, returns_a_response, returns_a_class_of_exceptions, returns_a_generator]
)
async def test_a_guard_that_denies_by_mistake_lets_nobody_in(
    guard: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    """What was meant to deny does, and the log says how to write it."""

    assert await status_behind(guard) == 500
    (failure,) = [record.exc_info for record in caplog.records if record.exc_info]
    assert isinstance(failure[1], ConfigurationError)
    assert guard.__name__ in str(failure[1])


async def working() -> AsyncGenerator[asyncio.Task[None]]:
    task = asyncio.create_task(asyncio.sleep(60))
    yield task
    task.cancel()


class Base(WebSocketHandler):
    @on("base")
    async def base(self, payload: None) -> str:
        return "base"


async def test_what_only_looks_like_a_mistake() -> None:
    """A guard may yield a task, a wrapped method has a mark of its own, a hook a query parameter with a default."""
    wraps: Any = functools.wraps(Base.base)

    class Derived(Base):
        @on("derived")
        @wraps  # type: ignore[untyped-decorator]
        async def base(self, payload: None) -> str:
            return f"{await super().base(payload)}, derived"

        async def on_connect(self, n=1) -> None:  # type: ignore[no-untyped-def] # pyright: ignore[reportMissingParameterType]
            assert n == 1

    async with (
        WebSocketTestClient(application(Derived, guards=[working])) as client,
        client.connect("/") as ws,
    ):
        await ws.send_json({"type": "derived", "id": 1})
        assert await ws.receive() == {"type": "$ok", "id": 1, "data": "base, derived"}


def test_the_reason_of_a_denial_is_a_text() -> None:
    """A close frame has room for nothing else; the detail of an `HTTPException` may be anything."""
    with pytest.raises(TypeError, match="a reason is a text"):
        Deny(403, reason={"a": 1})  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


@pytest.mark.logs_errors
async def test_a_validator_that_fails_is_an_internal_error() -> None:
    """A validator that raises something else than pydantic expects is answered, and the connection lives."""

    class Library(WebSocketHandler):
        @on
        async def look(self, message: Look) -> str:
            return message.key

    async with WebSocketTestClient(application(Library)) as client, client.connect("/") as ws:
        reply = await ws.call(Look.model_construct(key="b"))
        assert reply["error"]["code"] == "internal"
        assert (await ws.call(Look.model_construct(key="a")))["data"] == "A"


@pytest.mark.logs_errors
@pytest.mark.parametrize("max_in_flight", [1, 4])
@pytest.mark.parametrize(
    "error",
    [
        WebSocketError("invalid", details={"cause": ValueError("x")}),
        HTTPException(400, detail={"cause": object()}),
    ],
    ids=["details", "detail of an HTTPException"],
)
async def test_an_error_that_can_not_be_written_is_masked(error: Exception, max_in_flight: int) -> None:
    """An error whose parts are no JSON is logged and answered as `internal`, and the connection lives."""

    class Failing(WebSocketHandler):
        @on
        async def hello(self, message: Hello) -> None:
            raise error

    Failing.max_in_flight = max_in_flight
    async with WebSocketTestClient(application(Failing)) as client, client.connect("/") as ws:
        for _ in range(2):
            assert (await ws.call(Hello()))["error"]["code"] == "internal"


@pytest.mark.parametrize("denial", [HTTPException(499, "too old"), Deny(499, reason="too old"), Deny(499)])
async def test_a_status_of_somebodys_own_denies(denial: Exception) -> None:
    """A status that has no name in HTTP is sent as it is."""

    async def guard() -> None:
        raise denial

    assert await status_behind(guard) == 499


def test_a_message_method_can_not_take_the_place_of_a_shortcut() -> None:
    """An `on` method or a field named like something of the handler's own is refused with class, name and cure."""

    class Joins(WebSocketHandler):
        @on("join")
        async def join(self, room: str, **options: Any) -> None:
            pass

    @dataclass
    class Sends(WebSocketHandler):
        user: str = ""  # pyright: ignore[reportIncompatibleMethodOverride]

    for cls, name in ((Joins, "Joins.join"), (Sends, "Sends.user")):
        with pytest.raises(ConfigurationError, match=rf"{name}: that name is the handler's own .*give the field"):
            WebSocketRouter().add_handler("/", cls)


def test_only_the_star_is_special_in_the_pattern_of_a_room() -> None:
    """Brackets and question marks in a pattern stand for themselves."""
    hub = Hub(rooms={"chat:[vip]": RoomOptions(raw=True), "log?*": RoomOptions(raw=True)})
    assert hub.options("chat:[vip]").raw
    assert not hub.options("chat:v").raw
    assert hub.options("log?\n1").raw
    assert not hub.options("logs").raw


async def test_a_container_that_failed_to_start_can_start_again() -> None:
    """A resource that fails at the first start is initialised at the second, and shut down after it."""
    events: list[str] = []

    async def pool() -> AsyncGenerator[str]:
        events.append("up")
        if len(events) == 1:
            raise OSError("the database is not there yet")
        yield "pool"
        events.append("down")

    class Container(containers.DeclarativeContainer):
        database = providers.Resource(pool)

    class Quiet(WebSocketHandler):
        pass

    app = application(Quiet, container=Container())
    with pytest.raises(OSError, match="not there yet"):
        async with WebSocketTestClient(app):
            pass
    async with WebSocketTestClient(app):
        assert events == ["up", "up"]
    assert events == ["up", "up", "down"]

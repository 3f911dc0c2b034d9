"""Guards of a message method: dependencies that are solved for every message, before the method's own."""

from collections.abc import AsyncIterator
from typing import Annotated, Any

import pytest
from dependency_injector import containers, providers
from dependency_injector.wiring import Provide
from fastapi import Depends, FastAPI, HTTPException, Query

from tests.envelopes import client_of, receive, send
from tests.support import connect, serve
from wsrouter import ConfigurationError, Connection, Deny, Message, WebSocketHandler, WebSocketRouter, on
from wsrouter.testing import WebSocketTestClient


class Write(Message):
    text: str


class Stop(Message):
    pass


def noting(calls: list[str], name: str, *, deny: bool = False) -> Any:
    """Return a guard that notes its name, and then admits or denies."""

    async def guard() -> str:
        calls.append(name)
        if deny:
            raise Deny(403, reason="not yours")
        return name

    return guard


async def test_they_run_per_message_in_order_before_the_methods_dependencies() -> None:
    """Every message runs them, the first that is listed first, then what the method depends on, then the method."""
    calls: list[str] = []

    class Notes(WebSocketHandler):
        @on(guards=[noting(calls, "first"), noting(calls, "second")])
        async def write(self, message: Write, own: Annotated[str, Depends(noting(calls, "own"))]) -> None:
            calls.append(message.text)

    async with client_of(Notes) as ws:
        for text in ("a", "b"):
            await send(ws, "write", {"text": text}, id=text)
            assert await receive(ws) == {"type": "$ok", "id": text}
    assert calls == ["first", "second", "own", "a", "first", "second", "own", "b"]


@pytest.mark.parametrize(
    ("raised", "code"),
    [(Deny(403, reason="no"), "forbidden"), (Deny(401), "unauthenticated"), (HTTPException(404, "gone"), "not_found")],
)
async def test_one_that_denies_answers_and_is_the_last_that_ran(raised: Exception, code: str) -> None:
    """A denial is an error frame, nothing after it runs, and the connection lives."""
    calls: list[str] = []

    async def refuse() -> None:
        calls.append("refuse")
        raise raised

    class Notes(WebSocketHandler):
        @on(guards=[refuse, noting(calls, "after")])
        async def write(self, message: Write, own: Annotated[str, Depends(noting(calls, "own"))]) -> None:
            calls.append("method")

        @on
        async def stop(self, message: Stop) -> str:
            return "still here"

    async with client_of(Notes) as ws:
        await send(ws, "write", {"text": "a"}, id=1)
        answer = await receive(ws)
        assert (answer["type"], answer["id"], answer["error"]["code"]) == ("$error", 1, code)
        await send(ws, "stop", {}, id=2)
        assert await receive(ws) == {"type": "$ok", "id": 2, "data": "still here"}
    assert calls == ["refuse"]


async def test_one_that_the_router_lists_as_well_runs_again() -> None:
    """It is asked at the handshake and for every message; whatever else depends on it gets the message's value."""
    calls: list[str] = []

    async def count() -> int:
        calls.append("count")
        return len(calls)

    class Notes(WebSocketHandler):
        @on(guards=[count])
        async def write(self, message: Write, counted: Annotated[int, Depends(count)]) -> int:
            return counted

        @on
        async def stop(self, message: Stop, counted: Annotated[int, Depends(count)]) -> int:
            return counted

    async with client_of(Notes, guards=[count]) as ws:
        for number in (2, 3):
            await send(ws, "write", {"text": ""}, id=number)
            assert (await receive(ws))["data"] == number
        await send(ws, "stop", {}, id=9)
        assert (await receive(ws))["data"] == 1


async def test_one_that_yields_is_open_while_the_method_runs() -> None:
    """What it holds is let go when the method has returned, before the reply is sent; it sees an exception."""
    calls: list[str] = []

    async def hold() -> AsyncIterator[None]:
        calls.append("take")
        try:
            yield
        except LookupError:
            calls.append("failed")
            raise
        finally:
            calls.append("let go")

    class Notes(WebSocketHandler):
        @on(guards=[hold])
        async def write(self, message: Write) -> None:
            calls.append("write")
            if message.text == "wrong":
                raise LookupError

    router = WebSocketRouter()
    router.add_handler("/", Notes)

    @router.exception_handler(LookupError)
    async def missing(exc: LookupError) -> None:
        raise Deny(404)

    async with client_of(router) as ws:
        await send(ws, "write", {"text": "right"}, id=1)
        assert (await receive(ws))["type"] == "$ok"
        await send(ws, "write", {"text": "wrong"}, id=2)
        assert (await receive(ws))["error"]["code"] == "not_found"
    assert calls == ["take", "write", "let go", "take", "write", "failed", "let go"]


async def test_they_are_injected_as_any_dependency() -> None:
    """They get the connection, query parameters and what the container provides; also synchronous ones."""

    class Container(containers.DeclarativeContainer):
        word = providers.Object("sesame")

    def ask(
        connection: Connection,
        word: Annotated[str, Query()],
        wanted: Annotated[str, Provide[Container.word]],
    ) -> None:
        connection.scope["asked"] = True
        if word != wanted:
            raise Deny(403)

    class Notes(WebSocketHandler):
        @on(guards=[ask])
        async def write(self, message: Write) -> bool:
            return bool(self.connection.scope.get("asked"))

    router = WebSocketRouter(container=Container())
    router.add_handler("/", Notes)
    app = FastAPI()
    app.include_router(router)
    async with serve(app) as server:
        for word, type in (("sesame", "$ok"), ("barley", "$error")):
            async with connect(server, f"/?word={word}&wanted=barley") as ws:
                await send(ws, "write", {"text": ""}, id=1)
                assert (await receive(ws))["type"] == type


async def test_an_override_takes_the_place_of_one() -> None:
    """``dependency_overrides`` replaces a guard of a method, for connections that are open too."""

    async def refuse() -> None:
        raise Deny

    async def admit() -> None: ...

    class Notes(WebSocketHandler):
        @on(guards=[refuse])
        async def write(self, message: Write) -> None: ...

    router = WebSocketRouter()
    router.add_handler("/", Notes)
    app = FastAPI()
    app.include_router(router)
    async with WebSocketTestClient(app) as client, client.connect("/") as ws:
        assert (await ws.call(Write(text="")))["type"] == "$error"
        app.dependency_overrides[refuse] = admit
        assert (await ws.call(Write(text="")))["type"] == "$ok"
        app.dependency_overrides.clear()
        assert (await ws.call(Write(text="")))["type"] == "$error"


async def test_an_override_of_the_method_keeps_them() -> None:
    """A subclass that overrides the method without a word keeps its guards; one that says `on` again rules."""
    calls: list[str] = []

    class Notes(WebSocketHandler):
        @on(guards=[noting(calls, "guard", deny=True)])
        async def write(self, message: Write) -> None: ...

    class Silent(Notes):
        async def write(self, message: Write) -> None: ...

    class Loud(Notes):
        @on
        async def write(self, message: Write) -> None: ...

    async with client_of(Silent) as ws:
        await send(ws, "write", {"text": ""}, id=1)
        assert (await receive(ws))["error"]["code"] == "forbidden"
    async with client_of(Loud) as ws:
        await send(ws, "write", {"text": ""}, id=1)
        assert (await receive(ws))["type"] == "$ok"


def test_what_is_no_guard_is_refused_at_registration() -> None:
    """The text names the class, the method and the cure."""

    class NoList(WebSocketHandler):
        @on(guards=noting([], "alone"))
        async def write(self, message: Write) -> None: ...

    class NoGuard(WebSocketHandler):
        @on(guards=["admin"])  # type: ignore[list-item] # pyright: ignore[reportArgumentType]
        async def write(self, message: Write) -> None: ...

    router = WebSocketRouter()
    with pytest.raises(ConfigurationError, match=r"NoList\.write, argument 'guards' of @on: expected a list"):
        router.add_handler("/a", NoList)
    with pytest.raises(ConfigurationError, match=r"NoGuard\.write: 'admin' is no guard"):
        router.add_handler("/b", NoGuard)

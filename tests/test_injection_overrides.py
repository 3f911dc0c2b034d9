"""`app.dependency_overrides`: at both scopes, at any time, at every depth."""

from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Any

import pytest
from dependency_injector import containers, providers
from dependency_injector.wiring import Provide
from fastapi import Depends, Query

from tests.injecting import app_of, call
from tests.support import connect, serve
from wsrouter import CloseInfo, Connection, ConnectionScoped, Deny, WebSocketHandler, on
from wsrouter.testing import Denied, WebSocketTestClient


async def setting() -> str:
    return "real"


async def another() -> str:
    return "override"


async def a_third() -> str:
    return "another override"


async def beneath(setting: Annotated[str, Depends(setting)]) -> str:
    return f"beneath {setting}"


calls: list[str] = []


@pytest.fixture(autouse=True)
def no_calls() -> None:
    calls.clear()


async def guard(setting: Annotated[str, Depends(setting)]) -> str:
    calls.append(f"guard {setting}")
    return f"guarded {setting}"


async def lasting(setting: Annotated[str, Depends(setting)]) -> AsyncIterator[str]:
    calls.append(f"open {setting}")
    yield f"lasting {setting}"
    calls.append(f"close {setting}")


class Everywhere(WebSocketHandler):
    guards = [guard]

    def __init__(
        self,
        setting: Annotated[str, Depends(setting)],
        deep: Annotated[str, Depends(beneath)],
        guarded: Annotated[str, Depends(guard)],
        lasting: Annotated[str, ConnectionScoped(lasting)],
    ) -> None:
        self.values = [setting, deep, guarded, lasting]

    async def on_connect(
        self, setting: Annotated[str, Depends(setting)], deep: Annotated[str, Depends(beneath)]
    ) -> None:
        calls.append(f"on_connect {setting} {deep}")

    @on("constructed")
    async def constructed(self, message: None) -> list[str]:
        return self.values

    @on("use")
    async def use(
        self,
        message: None,
        setting: Annotated[str, Depends(setting)],
        deep: Annotated[str, Depends(beneath)],
        guarded: Annotated[str, Depends(guard)],
        lasting: Annotated[str, ConnectionScoped(lasting)],
    ) -> list[str]:
        return [setting, deep, guarded, lasting]

    async def on_disconnect(
        self, close: CloseInfo, setting: Annotated[str, Depends(setting)], deep: Annotated[str, Depends(beneath)]
    ) -> None:
        calls.append(f"on_disconnect {setting} {deep}")


REAL = ["real", "beneath real", "guarded real", "lasting real"]
OVERRIDDEN = ["override", "beneath override", "guarded override", "lasting override"]


@pytest.mark.parametrize("overridden", [False, True])
async def test_an_override_holds_at_both_scopes(overridden: bool) -> None:
    """Set before the connection, it is seen by guard, constructor, hooks and methods, at every depth."""
    app = app_of(Everywhere)
    name = "real"
    if overridden:
        app.dependency_overrides[setting] = another
        name = "override"
    async with serve(app) as server, connect(server, "/ws") as ws:
        await ws.send('{"type":"constructed","id":1}')
        expected = "[" + ",".join(f'"{each}"' for each in (OVERRIDDEN if overridden else REAL)) + "]"
        assert await ws.recv() == f'{{"type":"$ok","id":1,"data":{expected}}}'
        await ws.send('{"type":"use","id":1}')
        assert await ws.recv() == f'{{"type":"$ok","id":1,"data":{expected}}}'
    assert calls == [
        f"guard {name}",
        f"open {name}",
        f"on_connect {name} beneath {name}",
        f"on_disconnect {name} beneath {name}",
        f"close {name}",
    ]


async def test_an_override_can_be_set_and_removed_while_a_connection_is_open() -> None:
    """The next message sees it, and no value that was solved before the change: not the guard's, not a lasting one."""
    app = app_of(Everywhere)
    async with WebSocketTestClient(app) as client, client.connect("/ws") as ws:
        assert await call(ws) == REAL
        app.dependency_overrides[setting] = another
        assert await call(ws) == OVERRIDDEN
        assert await call(ws) == OVERRIDDEN
        app.dependency_overrides[setting] = a_third
        assert await call(ws) == [
            "another override",
            "beneath another override",
            "guarded another override",
            "lasting another override",
        ]
        app.dependency_overrides.clear()
        assert await call(ws) == REAL
        assert await call(ws, "constructed") == REAL
    assert calls == [
        "guard real",
        "open real",
        "on_connect real beneath real",
        "guard override",
        "open override",
        "guard override",
        "guard another override",
        "open another override",
        "on_disconnect real beneath real",
        "close another override",
        "close override",
        "close real",
    ]


async def test_an_override_that_was_there_at_the_handshake_can_be_removed() -> None:
    """What the handshake solved with an override is not used when it is gone."""
    app = app_of(Everywhere)
    app.dependency_overrides[setting] = another
    async with WebSocketTestClient(app) as client, client.connect("/ws") as ws:
        assert await call(ws) == OVERRIDDEN
        app.dependency_overrides.clear()
        assert await call(ws) == REAL
        assert await call(ws, "constructed") == OVERRIDDEN


async def test_an_overridden_guard_does_not_run() -> None:
    """An override takes the guard's place: in the handshake, and as the value that is injected."""

    async def denying() -> str:
        raise Deny(403)

    async def admitting(connection: Connection) -> str:
        return f"admitted {connection.path_params}"

    class Handler(WebSocketHandler):
        guards = [denying]

        def __init__(self, value: Annotated[str, Depends(denying)]) -> None:
            self.value = value

        @on("use")
        async def use(self, message: None, value: Annotated[str, Depends(denying)]) -> list[str]:
            return [self.value, value]

    app = app_of(Handler)
    async with WebSocketTestClient(app) as client:
        with pytest.raises(Denied):
            async with client.connect("/ws"):
                pass
        app.dependency_overrides[denying] = admitting
        async with client.connect("/ws") as ws:
            assert await call(ws) == ["admitted {}"] * 2


async def test_a_guard_that_is_overridden_later_is_solved_for_each_message() -> None:
    """The value of the handshake is not used while the override holds, and used again when it is gone."""

    async def value() -> str:
        calls.append("guard")
        return "real"

    async def replacement() -> AsyncIterator[str]:
        calls.append("open")
        yield "override"
        calls.append("close")

    class Handler(WebSocketHandler):
        guards = [value]

        @on("use")
        async def use(self, message: None, value: Annotated[str, Depends(value)]) -> str:
            return value

    app = app_of(Handler)
    async with WebSocketTestClient(app) as client, client.connect("/ws") as ws:
        assert await call(ws) == "real"
        app.dependency_overrides[value] = replacement
        assert await call(ws) == "override"
        assert await call(ws) == "override"
        app.dependency_overrides.clear()
        assert await call(ws) == "real"
    assert calls == ["guard", "open", "close", "open", "close"]


class Service:
    def __init__(self, name: str) -> None:
        self.name = name


class Container(containers.DeclarativeContainer):
    service = providers.Factory(Service, "from the container")


async def test_an_override_has_dependencies_of_its_own() -> None:
    """An override may take parameters, other dependencies (overridden as well), Provide and Connection."""

    async def overriding(
        service: Annotated[Service, Provide[Container.service]],
        connection: Connection,
        other: Annotated[str, Depends(beneath)],
        q: str,
        tag: Annotated[list[str], Query()],
    ) -> list[Any]:
        return [service.name, connection.id, other, q, tag]

    async def overridden() -> list[Any]:
        raise AssertionError("it is overridden")

    class Handler(WebSocketHandler):
        guards = [overridden]

        def __init__(self, values: Annotated[list[Any], ConnectionScoped(overridden)]) -> None:
            self.values = values

        @on("use")
        async def use(self, message: None, values: Annotated[list[Any], Depends(overridden)]) -> list[Any]:
            assert values[1] == self.connection.id
            return [values == self.values, values[0], *values[2:]]

    app = app_of(Handler, container=Container())
    app.dependency_overrides[overridden] = overriding
    app.dependency_overrides[setting] = another
    async with WebSocketTestClient(app) as client, client.connect("/ws?q=x&tag=a&tag=b&service=evil") as ws:
        for _ in range(2):
            assert await call(ws) == [True, "from the container", "beneath override", "x", ["a", "b"]]


async def test_an_override_may_yield_or_run_in_the_thread_pool() -> None:
    """The kind of an override is its own: a function may be overridden by a generator, and the other way round."""

    def sync_generator() -> Iterator[str]:
        calls.append("open")
        yield "sync generator"
        calls.append("close")

    class Sync:
        def __call__(self) -> str:
            return "instance"

    async def yielding() -> AsyncIterator[str]:
        yield "real"

    class Handler(WebSocketHandler):
        @on("use")
        async def use(
            self,
            message: None,
            setting: Annotated[str, Depends(setting)],
            yielding: Annotated[str, Depends(yielding)],
        ) -> list[str]:
            calls.append("method")
            return [setting, yielding]

    app = app_of(Handler)
    app.dependency_overrides[setting] = sync_generator
    app.dependency_overrides[yielding] = Sync()
    async with WebSocketTestClient(app) as client, client.connect("/ws") as ws:
        assert await call(ws) == ["sync generator", "instance"]
    assert calls == ["open", "method", "close"]


@pytest.mark.logs_errors
async def test_a_generator_in_place_of_a_constructors_dependency_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    """An override that yields where nothing could close it is a 500, and the log says what to do."""

    async def yielding() -> AsyncIterator[str]:
        yield "never closed"

    class Handler(WebSocketHandler):
        def __init__(self, setting: Annotated[str, Depends(setting)]) -> None: ...

    app = app_of(Handler)
    app.dependency_overrides[setting] = yielding
    async with WebSocketTestClient(app) as client:
        with pytest.raises(Denied) as denied:
            async with client.connect("/ws"):
                pass
    assert denied.value.status == 500
    assert "ConnectionScoped" in caplog.text
    assert "Handler.__init__" in caplog.text


async def test_overrides_of_a_mounted_application_are_its_own() -> None:
    """An application that is mounted has overrides of its own, and those of the outer one do not reach into it."""
    inner, outer = app_of(Everywhere), app_of(Everywhere)
    outer.mount("/inner", inner)
    inner.dependency_overrides[setting] = another
    async with WebSocketTestClient(outer) as client:
        async with client.connect("/ws") as ws:
            assert await call(ws) == REAL
        async with client.connect("/inner/ws") as ws:
            assert await call(ws) == OVERRIDDEN
        inner.dependency_overrides.clear()
        outer.dependency_overrides[setting] = another
        async with client.connect("/ws") as ws:
            assert await call(ws) == OVERRIDDEN
        async with client.connect("/inner/ws") as ws:
            assert await call(ws) == REAL

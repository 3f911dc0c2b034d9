"""The life of a credential while a connection is open: it ends, a fresh one takes over, and it is asked about again."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from time import time
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI
from starlette.requests import HTTPConnection
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import InvalidStatus

from tests.envelopes import close_of, receive, send
from tests.support import Server, connect, eventually, serve, vanish
from wsrouter import (
    ConfigurationError,
    Connection,
    ConnectionScoped,
    Deny,
    Disconnect,
    Hub,
    Limits,
    Message,
    WebSocketError,
    WebSocketHandler,
    WebSocketRouter,
    on,
)
from wsrouter.auth import Authenticator, Principal
from wsrouter.testing import Denied, WebSocketTestClient

ATTEMPTS = 3
"""How often something may take too long because the machine has more to do."""


class Who(Message):
    pass


class Work(Message):
    pass


class Words(Authenticator):
    """Admits whoever says ``user[+scope...]``, for some seconds; a word on an open connection renews it."""

    def __init__(self, lasts: float = 60, grace: float = 0) -> None:
        self.lasts = lasts
        self.expiry_grace = grace
        self.looks = 0
        self.waits = asyncio.Event()
        self.go_on = asyncio.Event()
        self.go_on.set()

    async def __call__(self, connection: HTTPConnection) -> Principal:
        return self.look(connection.headers["x-word"])

    async def renew(self, connection: HTTPConnection, token: str) -> Principal:
        self.waits.set()
        await self.go_on.wait()
        match token:
            case "wrong":
                raise Deny(401, reason="The word is wrong")
            case "own":
                raise WebSocketError("mine", "An error of its own")
            case "broken":
                raise LookupError("a secret")
            case _:
                return self.look(token)

    def look(self, word: str) -> Principal:
        self.looks += 1
        name, *scopes = word.split("+")
        return Principal(name, frozenset(scopes), {"look": self.looks}, time() + self.lasts)


@dataclass
class Here:
    """A server with one handler behind `Words`, and what was noted there."""

    words: Words
    server: Server = field(init=False)
    hub: Hub = field(default_factory=Hub)
    calls: list[Any] = field(default_factory=list[Any])
    working: asyncio.Event = field(default_factory=asyncio.Event)
    go_on: asyncio.Event = field(default_factory=asyncio.Event)

    def app(self, *guards: Any, **options: Any) -> FastAPI:
        here = self

        class Desk(WebSocketHandler):
            @on
            async def who(self, message: Who, principal: Annotated[Principal, Depends(here.words)]) -> list[Any]:
                assert principal is self.user
                return [principal.id, sorted(principal.scopes), principal.claims["look"]]

            @on
            async def work(self, message: Work) -> None:
                here.working.set()
                await here.go_on.wait()

        router = WebSocketRouter(hub=self.hub, guards=[self.words, *guards], **options)
        router.add_handler("/", Desk)
        app = FastAPI()
        app.include_router(router)
        return app

    def connect(self, word: str = "ann") -> Any:
        return connect(self.server, additional_headers={"x-word": word})


def itself(principal: Principal) -> Principal:
    return principal


async def auth(ws: ClientConnection, token: Any, **keys: Any) -> Any:
    """Send a fresh token, and return what answers it."""
    await send(ws, "$auth", {"token": token}, **keys)
    return await receive(ws)


async def who(ws: ClientConnection) -> Any:
    await send(ws, "who", {}, id="who")
    return (await receive(ws))["data"]


async def seconds_until_closed(ws: ClientConnection, code: int) -> float:
    began = time()
    assert (await close_of(ws))[0] == code
    return time() - began


async def test_it_closes_when_the_credential_and_its_grace_have_ended() -> None:
    """4519, within a second of the end; `on_disconnect` and the counters follow."""
    here = Here(Words(lasts=0.4, grace=0.3))
    seconds = 0.0
    async with serve(here.app()) as here.server:
        for _ in range(ATTEMPTS):
            async with here.connect() as ws:
                seconds = await seconds_until_closed(ws, 4519)
                assert seconds > 0.6
                await eventually(lambda: not here.hub.stats().connections)
            if seconds < 1.7:
                return
    pytest.fail(f"closed after {seconds} s")


async def test_it_closes_while_a_message_is_handled() -> None:
    """A method that works does not keep a connection open beyond its credential."""
    here = Here(Words(lasts=0.3))
    async with serve(here.app()) as here.server, here.connect() as ws:
        await send(ws, "work", {}, id=1)
        await here.working.wait()
        assert await seconds_until_closed(ws, 4519) < 5
        here.go_on.set()


async def test_a_fresh_token_in_time_keeps_it_open() -> None:
    """After ``$auth`` the connection lives as long as the fresh token, and the handler sees that one."""
    here = Here(Words(lasts=0.5))
    async with serve(here.app()) as here.server, here.connect() as ws:
        assert await who(ws) == ["ann", [], 1]
        here.words.lasts = 60
        assert await auth(ws, "ann+admin", id=7) == {"type": "$ok", "id": 7}
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(ws.recv(), 1.0)
        assert await who(ws) == ["ann", ["admin"], 2]


async def test_a_shorter_token_ends_it_earlier() -> None:
    """The newest token rules, also where it ends before the one that it replaces."""
    here = Here(Words())
    async with serve(here.app()) as here.server, here.connect() as ws:
        here.words.lasts = 0.2
        assert (await auth(ws, "ann", id=1))["type"] == "$ok"
        assert await seconds_until_closed(ws, 4519) < 5


async def test_without_an_id_only_errors_are_answered() -> None:
    """As for any message: no bare ``$ok``, but an ``$error``."""
    here = Here(Words())
    async with serve(here.app()) as here.server, here.connect() as ws:
        await send(ws, "$auth", {"token": "ann+a"})
        await eventually(lambda: here.words.looks == 2)
        assert await who(ws) == ["ann", ["a"], 2]
        assert (await auth(ws, "wrong"))["error"]["code"] == "unauthenticated"


@pytest.mark.parametrize(
    ("token", "code"),
    [
        ("wrong", "unauthenticated"),
        ("own", "mine"),
        ("bob", "forbidden"),
        ("", "invalid"),
        (None, "invalid"),
        (7, "invalid"),
        (["ann"], "invalid"),
    ],
)
async def test_a_token_that_does_not_renew_it_is_answered_and_changes_nothing(token: Any, code: str) -> None:
    """The user stays who it was, and the connection lives until the old credential ends."""
    here = Here(Words(lasts=1))
    async with serve(here.app()) as here.server, here.connect("ann+reader") as ws:
        answer = await auth(ws, token, id=1)
        assert (answer["type"], answer["id"], answer["error"]["code"]) == ("$error", 1, code)
        assert (await who(ws))[:2] == ["ann", ["reader"]]
        assert await seconds_until_closed(ws, 4519) < 5


@pytest.mark.logs_errors
async def test_an_authenticator_that_fails_is_masked() -> None:
    """The client is told ``internal``, and nothing of what went wrong."""
    here = Here(Words())
    async with serve(here.app()) as here.server, here.connect() as ws:
        answer = await auth(ws, "broken", id=1)
        assert answer["error"]["code"] == "internal"
        assert "secret" not in json.dumps(answer)
        assert (await who(ws))[0] == "ann"


@pytest.mark.parametrize("data", [None, 5, [], "ann", {}, {"token": {}}])
async def test_data_of_another_shape_is_invalid(data: Any) -> None:
    """``$auth`` carries an object with a token."""
    here = Here(Words())
    async with serve(here.app()) as here.server, here.connect() as ws:
        await send(ws, "$auth", data, id=1)
        assert (await receive(ws))["error"]["code"] == "invalid"


async def test_it_goes_ahead_of_messages_that_wait() -> None:
    """It is answered while a message is handled, and those that wait are handled for the fresh user."""
    here = Here(Words())
    async with serve(here.app()) as here.server, here.connect() as ws:
        await send(ws, "work", {}, id="work")
        await send(ws, "who", {}, id="who")
        await here.working.wait()
        assert await auth(ws, "ann+writer", id="auth") == {"type": "$ok", "id": "auth"}
        here.go_on.set()
        assert (await receive(ws))["id"] == "work"
        assert (await receive(ws))["data"] == ["ann", ["writer"], 2]


async def test_one_at_a_time() -> None:
    """A second ``$auth`` is refused while the first is looked at, and may come again."""
    here = Here(Words())
    here.words.go_on.clear()
    async with serve(here.app()) as here.server, here.connect() as ws:
        await send(ws, "$auth", {"token": "ann+first"}, id=1)
        await here.words.waits.wait()
        refused = await auth(ws, "ann+second", id=2)
        assert (refused["error"]["code"], refused["error"]["retry"]) == ("conflict", True)
        here.words.go_on.set()
        assert await receive(ws) == {"type": "$ok", "id": 1}
        assert await who(ws) == ["ann", ["first"], 2]


async def test_an_id_in_flight_closes() -> None:
    """Its id is one of the client's, as those of messages are."""
    here = Here(Words())
    async with serve(here.app()) as here.server, here.connect() as ws:
        await send(ws, "work", {}, id=1)
        await send(ws, "$auth", {"token": "ann"}, id=1)
        assert (await close_of(ws))[0] == 4400
        here.go_on.set()


async def test_one_that_came_in_time_is_waited_for() -> None:
    """A token that is still looked at when the old one ends decides; the connection is not closed meanwhile."""
    here = Here(Words(lasts=0.4))
    here.words.go_on.clear()
    async with serve(here.app()) as here.server, here.connect() as ws:
        await send(ws, "$auth", {"token": "ann"}, id=1)
        await here.words.waits.wait()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(ws.recv(), 0.7)
        here.words.lasts = 60
        here.words.go_on.set()
        assert await receive(ws) == {"type": "$ok", "id": 1}
        assert (await who(ws))[2] == 2


async def test_one_that_came_in_time_and_fails_ends_it() -> None:
    """When what came in time turns out wrong after the old credential has ended, the connection ends."""
    here = Here(Words(lasts=0.3))
    here.words.go_on.clear()
    async with serve(here.app()) as here.server, here.connect() as ws:
        await send(ws, "$auth", {"token": "wrong"}, id=1)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(ws.recv(), 0.6)
        here.words.go_on.set()
        assert (await receive(ws))["error"]["code"] == "unauthenticated"
        assert await seconds_until_closed(ws, 4519) < 1.5


async def test_an_authenticator_that_takes_too_long() -> None:
    """After the handshake's deadline the answer is ``timeout``, and another token may come."""
    here = Here(Words())
    here.words.go_on.clear()
    async with serve(here.app(limits=Limits(handshake=0.3))) as here.server, here.connect() as ws:
        assert (await auth(ws, "ann", id=1))["error"]["code"] == "timeout"
        here.words.go_on.set()
        assert (await auth(ws, "ann", id=2))["type"] == "$ok"


async def test_the_guards_that_depend_on_it_run_again_and_no_others() -> None:
    """Their values are replaced; a guard that reads the user without depending on it says so with ``reads_user``."""
    here = Here(Words())

    async def unrelated() -> None:
        here.calls.append("unrelated")

    async def service() -> str:
        here.calls.append("service")
        return "service"

    async def level(user: Annotated[Principal, Depends(here.words)], given: Annotated[str, Depends(service)]) -> int:
        here.calls.append("level")
        return len(user.scopes)

    class Reads:
        reads_user = True

        async def __call__(self, connection: Connection) -> None:
            here.calls.append(sorted(connection.user.scopes))

    class Desk(WebSocketHandler):
        @on
        async def who(self, message: Who, found: Annotated[int, Depends(level)]) -> int:
            return found

    router = WebSocketRouter(guards=[unrelated, here.words, level, Reads()])
    router.add_handler("/", Desk)
    app = FastAPI()
    app.include_router(router)
    async with serve(app) as here.server, here.connect("ann+a") as ws:
        assert await who(ws) == 1
        assert here.calls == ["unrelated", "service", "level", ["a"]]
        here.calls.clear()
        assert (await auth(ws, "ann+a+b", id=1))["type"] == "$ok"
        assert here.calls == ["service", "level", ["a", "b"]]
        assert await who(ws) == 2
        assert here.calls == ["service", "level", ["a", "b"]]


@pytest.mark.parametrize(
    ("raised", "code"), [(Deny(403, reason="no more"), 4403), (Disconnect(4321, "out"), 4321), (LookupError(), 1011)]
)
@pytest.mark.logs_errors
async def test_a_guard_that_denies_now_closes(raised: Exception, code: int) -> None:
    """What such a guard raises closes the connection with its code; what was opened for it is closed."""
    here = Here(Words())

    async def opened() -> AsyncIterator[None]:
        here.calls.append("open")
        try:
            yield
        finally:
            here.calls.append("close")

    async def guard(user: Annotated[Principal, Depends(here.words)], session: Annotated[None, Depends(opened)]) -> None:
        if "out" in user.scopes:
            raise raised

    async with serve(here.app(guard)) as here.server, here.connect() as ws:
        await send(ws, "$auth", {"token": "ann+out"}, id=1)
        assert (await close_of(ws))[0] == code
    assert here.calls == ["open", "close"] * 2


async def test_a_guard_that_takes_too_long_now_closes() -> None:
    """4503: a user whose guards did not say yes is not let go on."""
    here = Here(Words())

    async def guard(user: Annotated[Principal, Depends(here.words)]) -> None:
        if user.scopes:
            await asyncio.Event().wait()

    async with serve(here.app(guard, limits=Limits(handshake=0.3))) as here.server, here.connect() as ws:
        await send(ws, "$auth", {"token": "ann+slow"}, id=1)
        assert (await close_of(ws))[0] == 4503


async def test_a_guard_that_holds_something_is_opened_anew() -> None:
    """The former is closed when the next has opened, all at the end, each in the task that opened it."""
    here = Here(Words())

    async def lease(user: Annotated[Principal, Depends(here.words)]) -> AsyncIterator[str]:
        look, task = user.claims["look"], asyncio.current_task()
        here.calls.append(("open", look))
        async with asyncio.timeout(60):
            yield str(look)
        assert asyncio.current_task() is task
        here.calls.append(("close", look))

    async with serve(here.app(lease)) as here.server, here.connect() as ws:
        for id in (2, 3):
            assert (await auth(ws, "ann", id=id))["type"] == "$ok"
        await eventually(lambda: ("close", 2) in here.calls)
        assert [look for what, look in here.calls if what == "open"] == [1, 2, 3]
        await ws.close()
        await eventually(lambda: len(here.calls) == 6)
    assert here.calls[-2:] == [("close", 3), ("close", 1)]


async def test_a_client_that_leaves_meanwhile_leaves_nothing() -> None:
    """What is under way when the client is gone is cancelled, and its dependencies are closed."""
    here = Here(Words())

    async def guard(user: Annotated[Principal, Depends(here.words)]) -> AsyncIterator[None]:
        if user.scopes:
            here.working.set()
            try:
                await asyncio.Event().wait()
            finally:
                here.calls.append("cancelled")
        yield

    async with serve(here.app(guard)) as here.server:
        ws = await here.connect()
        await send(ws, "$auth", {"token": "ann+slow"}, id=1)
        await here.working.wait()
        await vanish(ws)
        await eventually(lambda: here.calls == ["cancelled"])
        await eventually(lambda: not here.hub.stats().users)


async def test_a_handler_without_authenticator_knows_no_auth() -> None:
    """``$auth`` is an unknown type there, as any other that begins with ``$``."""
    router = WebSocketRouter()
    router.add_handler("/", WebSocketHandler)
    app = FastAPI()
    app.include_router(router)
    async with serve(app) as server, connect(server) as ws:
        assert (await auth(ws, "ann", id=1))["error"]["code"] == "unknown_type"


async def test_an_override_of_the_authenticator_answers_again() -> None:
    """In a test the override gives the user, at the handshake and for ``$auth``: no token is looked at."""
    here = Here(Words())
    users = iter([Principal("eve", frozenset({"one"}), {"look": 1}), Principal("eve", frozenset({"two"}), {"look": 2})])
    app = here.app()
    app.dependency_overrides[here.words] = lambda: next(users)
    async with WebSocketTestClient(app) as client, client.connect("/") as ws:
        assert (await ws.call(Who()))["data"] == ["eve", ["one"], 1]
        await ws.send_frame('{"type":"$auth","id":5,"data":{"token":"anything"}}')
        assert json.loads(str(await ws.receive_frame())) == {"type": "$ok", "id": 5}
        assert (await ws.call(Who()))["data"] == ["eve", ["two"], 2]
    assert here.words.looks == 0


class Asked(Words):
    """An authenticator that asks again whether its users may stay."""

    revalidate_every = 0.1


async def test_whether_it_holds_is_asked_again_and_again() -> None:
    """The function is injected as a guard is, sees the current user, and ends the connection when it raises."""
    here = Here(Asked())

    async def session() -> AsyncIterator[str]:
        here.calls.append("open")
        yield "session"
        here.calls.append("close")

    async def still(
        user: Annotated[Principal, Depends(here.words)],
        opened: Annotated[str, Depends(session)],
        connection: Connection,
    ) -> None:
        assert user is connection.user
        here.calls.append(sorted(user.scopes))
        if "out" in user.scopes:
            raise Deny(403, reason="revoked")

    here.words.revalidate = still
    async with serve(here.app()) as here.server, here.connect("ann+in") as ws:
        await eventually(lambda: here.calls.count(["in"]) >= 3)
        assert (await auth(ws, "ann+out", id=1))["type"] == "$ok"
        assert await close_of(ws) == (4403, "revoked")
    assert here.calls[:3] == ["open", ["in"], "close"]
    assert here.calls.count(["out"]) == 1


@pytest.mark.parametrize("raised", [Disconnect(4999, "bye"), Deny(401), WebSocketError("not_found")])
async def test_a_plain_function_may_ask_too(raised: Exception) -> None:
    """It runs in the thread pool; every way to end a connection ends it."""
    here = Here(Asked())

    def still() -> None:
        raise raised

    here.words.revalidate = still
    async with serve(here.app()) as here.server, here.connect() as ws:
        codes = {"Disconnect": 4999, "Deny": 4401, "WebSocketError": 4404}
        assert (await close_of(ws))[0] == codes[type(raised).__name__]


@pytest.mark.logs_errors
async def test_who_can_not_say_lets_it_go_on() -> None:
    """A function that fails or takes too long is logged, and asked again: an outage does not end everybody."""
    here = Here(Asked())

    async def still() -> None:
        here.calls.append("asked")
        if len(here.calls) == 2:
            await asyncio.Event().wait()
        raise LookupError

    here.words.revalidate = still
    async with serve(here.app(limits=Limits(handshake=0.2))) as here.server, here.connect() as ws:
        await eventually(lambda: len(here.calls) >= 4, timeout=5)
        assert (await who(ws))[0] == "ann"


async def test_what_it_needs_for_the_connection_is_opened_and_closed_once() -> None:
    """What is `ConnectionScoped` is opened in the session's own task, before `on_connect`."""
    here = Here(Asked())

    async def kept() -> AsyncIterator[object]:
        task = asyncio.current_task()
        async with asyncio.timeout(60):
            yield object()
        assert asyncio.current_task() is task
        here.calls.append("closed")

    async def still(thing: Annotated[object, ConnectionScoped(kept)]) -> None:
        here.calls.append(thing)

    here.words.revalidate = still
    async with serve(here.app()) as here.server:
        async with here.connect():
            await eventually(lambda: len(here.calls) >= 2)
        await eventually(lambda: here.calls[-1] == "closed")
    assert len(set(here.calls)) == 2


async def test_asking_ends_with_the_connection() -> None:
    """A function that is asked while the client leaves is cancelled, and not asked again."""
    here = Here(Asked())

    async def still() -> None:
        here.working.set()
        try:
            await asyncio.Event().wait()
        finally:
            here.calls.append("cancelled")

    here.words.revalidate = still
    async with serve(here.app()) as here.server:
        ws = await here.connect()
        await here.working.wait()
        await vanish(ws)
        await eventually(lambda: here.calls == ["cancelled"])


async def test_a_revoked_user_is_out_at_once_on_every_connection() -> None:
    """`disconnect_user` closes all connections of a user, those that renewed their credential too."""
    here = Here(Words())
    async with (
        serve(here.app()) as here.server,
        here.connect() as one,
        here.connect() as two,
        here.connect("bob") as bob,
    ):
        assert (await auth(two, "ann+x", id=1))["type"] == "$ok"
        await here.hub.disconnect_user("ann", code=4403, reason="revoked")
        began = time()
        for ws in (one, two):
            assert await close_of(ws) == (4403, "revoked")
        assert time() - began < 1
        assert (await who(bob))[0] == "bob"


@pytest.mark.logs_errors
async def test_a_cookie_without_a_guard_for_origins_is_refused_at_start() -> None:
    """The error names the handler and the cure; a guard that says that it checks origins is enough."""

    class CookieWords(Words):
        ambient = True

    async def origin() -> None: ...

    here = Here(CookieWords())
    with pytest.raises(ConfigurationError, match=r"Desk at '/': browsers attach its credential.*AllowOrigins"):
        async with serve(here.app()):
            pass
    origin.checks_origin = True  # type: ignore[attr-defined] # pyright: ignore[reportFunctionMemberAccess]
    async with serve(here.app(origin)):
        pass


@pytest.mark.logs_errors
async def test_a_guard_that_goes_by_the_user_is_listed_after_the_authenticator() -> None:
    """It would not find a user, and admit everybody or nobody: an error at start."""

    class PerUser:
        needs_user = True

        async def __call__(self) -> None: ...

    router = WebSocketRouter(guards=[PerUser(), Words()])
    router.add_handler("/", WebSocketHandler)
    app = FastAPI()
    app.include_router(router)
    with pytest.raises(ConfigurationError, match=r"the guard .*PerUser goes by the user, and is listed before Words"):
        async with serve(app):
            pass


@pytest.mark.parametrize("every", [0, -1])
@pytest.mark.logs_errors
async def test_an_interval_that_is_none_is_refused_at_start(every: float) -> None:
    """`revalidate_every` is above zero, and what is asked is a function without yield."""
    here = Here(Asked())

    async def still() -> None: ...

    async def stream() -> AsyncIterator[None]:
        yield

    here.words.revalidate = stream
    with pytest.raises(ConfigurationError, match="without yield"):
        async with serve(here.app()):
            pass
    here.words.revalidate, here.words.revalidate_every = still, every
    with pytest.raises(ConfigurationError, match="not above zero"):
        async with serve(here.app()):
            pass


@pytest.mark.parametrize("end", [None, float("inf")])
async def test_a_user_without_an_end_does_not_expire(end: Any) -> None:
    """``expires_at`` may be ``None`` or infinite."""
    here = Here(Words())
    app = here.app()
    app.dependency_overrides[here.words] = partial(itself, Principal("ann", frozenset(), {"look": 0}, end))
    async with WebSocketTestClient(app) as client, client.connect("/") as ws:
        assert (await ws.call(Who()))["data"] == ["ann", [], 0]


@pytest.mark.parametrize("end", [True, "tomorrow", float("nan"), datetime(2030, 1, 1, tzinfo=UTC)])
@pytest.mark.logs_errors
async def test_an_end_that_is_no_time_is_an_error(end: Any, caplog: pytest.LogCaptureFixture) -> None:
    """It would never be enforced, so nobody gets in, and the log says what is expected."""
    here = Here(Words())
    app = here.app()
    app.dependency_overrides[here.words] = partial(itself, Principal("ann", frozenset(), {"look": 0}, end))
    async with WebSocketTestClient(app) as client:
        with pytest.raises(Denied) as denied:
            async with client.connect("/"):
                pass
    assert denied.value.status == 500
    assert "Principal.expires_at, of Words: expected seconds since the epoch, or None, got" in caplog.text


async def test_what_has_ended_when_the_handshake_is_through_is_denied() -> None:
    """A credential that ends while guards take their time lets nobody in."""
    here = Here(Words(lasts=-5))
    async with serve(here.app()) as here.server:
        with pytest.raises(InvalidStatus) as denied:
            await here.connect()
        assert denied.value.response.status_code == 401

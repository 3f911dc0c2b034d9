"""What a credential decides holds wherever it is asked for, and for whoever is made of it."""

import asyncio
import gc
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI, HTTPException, Security, WebSocketException
from starlette.requests import HTTPConnection
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.auth.tokens import SECRET, token
from tests.envelopes import close_of, receive, send
from tests.support import Server, connect, eventually, serve
from wsrouter import (
    ConfigurationError,
    Connection,
    ConnectionScoped,
    Deny,
    Hub,
    Limits,
    Message,
    WebSocketHandler,
    WebSocketRouter,
    on,
)
from wsrouter.auth import Authenticator, Cookie, JWTAuth, Principal, Query
from wsrouter.guards import ConnectionLimit, RequireScopes
from wsrouter.session import Session

j = JWTAuth(key=SECRET, algorithms=["HS256"], expiry_grace=0)
by_cookie = JWTAuth(key=SECRET, algorithms=["HS256"], sources=[Cookie("session")])
partner = JWTAuth(key=SECRET, algorithms=["HS256"], sources=[Query("partner")], expiry_grace=0)

SignedIn = Annotated[Principal, Depends(j)]


class User:
    def __init__(self, id: int) -> None:
        self.id = id


class CurrentUser(Authenticator):
    """An account in place of a token's principal, as applications have it."""

    async def __call__(self, principal: SignedIn) -> User:
        return User(7)


class APIKey(Authenticator):
    async def __call__(self) -> User:
        return User(8)


async def load(connection: HTTPConnection, principal: SignedIn) -> None:
    connection.scope["user"] = User(7)


async def nested(principal: SignedIn) -> None: ...


async def nested_cookie(principal: Annotated[Principal, Depends(by_cookie)]) -> None: ...


class Who(Message):
    pass


class Desk(WebSocketHandler):
    @on
    async def who(self, message: Who) -> str:
        return str(self.user.id)


def app_of(
    *guards: Any,
    handler: type[WebSocketHandler] = Desk,
    dependencies: Any = None,
    app: FastAPI | None = None,
    **more: Any,  # of the router
) -> FastAPI:
    """One handler at ``/``."""
    router = WebSocketRouter(guards=guards, **more)
    router.add_handler("/", handler)
    app = app or FastAPI()
    app.include_router(router, dependencies=dependencies)
    return app


def arrive(server: Server, seconds: float = 60, path: str = "/", **claims: Any) -> Any:
    """Connect with a token that lasts so long; not less than two seconds, since PyJWT cuts off the fraction."""
    given: dict[str, Any] = {"sub": "ada", "exp": time.time() + seconds, **claims}
    return connect(server, path, additional_headers={"Authorization": f"Bearer {token(**given)}"})


async def ask(ws: ClientConnection, type: str = "who", data: Any = None) -> Any:
    await send(ws, type, data or {}, id=type)
    answer = await receive(ws)
    return answer["error"]["code"] if answer["type"] == "$error" else answer.get("data", answer["type"])


async def code_of_the_end(server: Server, path: str) -> tuple[Any, int | None]:
    """Return what a connection answers whose token lasts for two seconds, and how it ends."""
    async with arrive(server, 2, path) as ws:
        return await ask(ws), (await close_of(ws))[0]


async def test_it_ends_with_the_token_whoever_the_user_is() -> None:
    """The end is the token's, also where something without an end is made of it, or stands beside it."""
    chains: dict[str, tuple[str, list[Any]]] = {
        "/token/": ("ada", [j]),
        "/account/": ("7", [CurrentUser()]),
        "/token-then-account/": ("7", [j, CurrentUser()]),
        "/token-then-loaded/": ("7", [j, load]),
        "/loaded/": ("7", [load]),
        "/token-then-key/": ("8", [j, APIKey()]),
        "/key-then-token/": ("ada", [APIKey(), j]),
    }
    app = FastAPI()
    for path, (_, guards) in chains.items():
        app_of(*guards, app=app, prefix=path.rstrip("/"))
    async with serve(app) as server:
        ends = await asyncio.gather(*(code_of_the_end(server, path) for path in chains))
    assert dict(zip(chains, ends, strict=True)) == {path: (user, 4519) for path, (user, _) in chains.items()}


class ByGuard(WebSocketHandler):
    @on(guards=[j])
    async def who(self, message: Who) -> None: ...


class ByParameter(WebSocketHandler):
    @on
    async def who(self, message: Who, principal: SignedIn) -> None: ...


async def test_it_ends_with_a_token_that_only_a_message_asked_for() -> None:
    """Who is found while the connection is open is watched from then on."""
    app = app_of(handler=ByGuard, prefix="/guard", app=app_of(handler=ByParameter, prefix="/parameter"))
    async with serve(app) as server:
        ends = await asyncio.gather(*(code_of_the_end(server, path) for path in ("/guard/", "/parameter/")))
    assert ends == [("$ok", 4519), ("$ok", 4519)]


@pytest.mark.parametrize("where", ["router", "application"])
async def test_it_ends_with_a_token_deep_in_fastapis_dependencies(where: str) -> None:
    """Also where FastAPI asks for it on behalf of something else."""
    deep = [Depends(nested)]
    app = app_of(dependencies=deep) if where == "router" else app_of(app=FastAPI(dependencies=deep))
    async with serve(app) as server, arrive(server, 2) as ws:
        assert await ask(ws) == "ada"
        assert (await close_of(ws))[0] == 4519


class AsksCookie(WebSocketHandler):
    @on
    async def who(self, message: Who, principal: Annotated[Principal, Depends(by_cookie)]) -> None: ...


async def middleware(
    message: Any,
    connection: Connection,
    call_next: Callable[[Any], Awaitable[Any]],
    principal: Annotated[Principal, Depends(by_cookie)],
) -> None:
    await call_next(message)


@pytest.mark.parametrize(
    "app",
    [
        lambda: app_of(by_cookie),
        lambda: app_of(nested_cookie),
        lambda: app_of(dependencies=[Depends(nested_cookie)]),
        lambda: app_of(app=FastAPI(dependencies=[Depends(nested_cookie)])),
        lambda: app_of(middleware=[middleware]),
        lambda: app_of(handler=AsksCookie),
    ],
)
@pytest.mark.logs_errors
async def test_a_cookie_anywhere_needs_a_guard_for_origins(app: Callable[[], FastAPI]) -> None:
    """However deep the cookie is asked for, the application does not start without one."""
    with pytest.raises(ConfigurationError, match="AllowOrigins"):
        async with serve(app()):
            pass


async def test_a_flood_of_bad_tokens_does_not_put_off_the_end() -> None:
    """A renewal that fails after the end closes, and none begins after it."""
    bad = token(exp=int(time.time()) - 100)
    async with serve(app_of(j)) as server, arrive(server, 2) as ws:
        began = time.time()
        with suppress(ConnectionClosed):
            while time.time() < began + 20:
                await send(ws, "$auth", {"token": bad})
                await ws.recv()
        assert ws.close_code == 4519
        assert time.time() < began + 4


async def test_a_user_goes_by_what_the_last_guard_says() -> None:
    """`disconnect_user` reaches whom `self.user` is, and by that name only."""
    hub = Hub()
    async with serve(app_of(j, CurrentUser(), hub=hub)) as server, arrive(server) as ws:
        assert await ask(ws) == "7"
        await hub.disconnect_user("ada")
        assert await ask(ws) == "7"
        await hub.disconnect_user("7", reason="out")
        assert await close_of(ws) == (4403, "out")
        await eventually(lambda: not hub.stats().users)


class Mixed(WebSocketHandler):
    @on
    async def who(self, message: Who, other: Annotated[Principal, Depends(partner)]) -> list[str]:
        return [self.user.id, other.id]

    @on("admin", guards=[RequireScopes("admin")])
    async def admin(self, data: Any) -> None: ...


async def test_a_second_authenticator_does_not_become_the_user() -> None:
    """What a message asks of another credential gives neither its name nor its scopes to the connection."""
    other = token(sub="partner", scope="admin")
    async with serve(app_of(j, handler=Mixed)) as server, arrive(server, path=f"/?partner={other}") as ws:
        assert await ask(ws, "admin") == "forbidden"
        assert await ask(ws) == ["ada", "partner"]
        assert await ask(ws, "admin") == "forbidden"


class Two(WebSocketHandler):
    @on
    async def who(self, message: Who, a: SignedIn, b: Annotated[Principal, Depends(partner)]) -> list[Any]:
        return [sorted(a.scopes), sorted(b.scopes), sorted(self.user.scopes)]


async def test_each_of_two_authenticators_can_be_renewed() -> None:
    """A token goes to the one whose subject it names, first to that whose user it is; the others stay as they are."""
    other = token(sub="partner", scope="old")
    async with serve(app_of(j, partner, handler=Two)) as server, arrive(server, path=f"/?partner={other}") as ws:
        assert await ask(ws) == [[], ["old"], ["old"]]
        assert await ask(ws, "$auth", {"token": token(sub="partner", scope="new")}) == "$ok"
        assert await ask(ws) == [[], ["new"], ["new"]]
        assert await ask(ws, "$auth", {"token": token(sub="ada", scope="more")}) == "$ok"
        assert await ask(ws) == [["more"], ["new"], ["new"]]
        assert await ask(ws, "$auth", {"token": token(sub="eve")}) == "forbidden"


async def inner(required: Annotated[None, Depends(RequireScopes("admin"))]) -> None: ...


async def reads_connection(connection: Connection) -> None:
    if "admin" not in connection.user.scopes:
        raise Deny(403)


@pytest.mark.parametrize("guard", [RequireScopes("admin"), inner, reads_connection])
async def test_a_token_with_less_closes(guard: Any) -> None:
    """Whatever guard lets in by the user's scopes, nested or a plain function, is asked again for a fresh token."""
    async with serve(app_of(j, guard)) as server, arrive(server, scope="admin") as ws:
        await send(ws, "$auth", {"token": token(sub="ada", scope="")})
        assert (await close_of(ws))[0] == 4403


async def test_a_guard_may_say_that_it_does_not_read_the_user() -> None:
    """With ``reads_user = False`` what gets the connection is not run again."""
    calls: list[str] = []

    class Counts:
        reads_user = False

        async def __call__(self, connection: Connection) -> None:
            calls.append(connection.id)

    async with serve(app_of(j, Counts())) as server, arrive(server) as ws:
        assert await ask(ws, "$auth", {"token": token(sub="ada")}) == "$ok"
    assert len(calls) == 1


class Constructed(Desk):
    def __init__(self, required: Annotated[None, Depends(RequireScopes("admin"))]) -> None: ...


@pytest.mark.parametrize(
    ("app", "words"),
    [
        (lambda: app_of(j, handler=Constructed), "RequireScopes goes by the user, and would not be asked again"),
        (lambda: app_of(dependencies=[Depends(j), Depends(RequireScopes("a"))]), "would not be asked again"),
        (lambda: app_of(ConnectionLimit(per_user=1), CurrentUser()), "is listed before"),
        (lambda: app_of(ConnectionLimit(per_user=1), nested), "is listed before"),
        (lambda: app_of(RequireScopes("admin"), j), "is listed before"),
    ],
)
@pytest.mark.logs_errors
async def test_a_guard_in_the_wrong_place_is_refused_at_start(app: Callable[[], FastAPI], words: str) -> None:
    """One that would be asked too early, or only once."""
    with pytest.raises(ConfigurationError, match=words):
        async with serve(app()):
            pass


async def check(connection: HTTPConnection) -> None:
    raise Deny


def forgets_await(connection: HTTPConnection) -> Any:
    return check(connection)


async def returns_denial(connection: HTTPConnection) -> Any:
    return Deny(403)


async def returns_false(connection: HTTPConnection) -> bool:
    return False


each_guard_that_decides_nothing = pytest.mark.parametrize(
    ("guard", "words"),
    [(forgets_await, "await what it calls"), (returns_denial, "write raise"), (returns_false, "raise Deny")],
)


@each_guard_that_decides_nothing
@pytest.mark.parametrize("overridden", [False, True])
@pytest.mark.logs_errors
async def test_a_guard_of_a_method_that_decides_nothing_lets_nothing_through(
    guard: Any, words: str, overridden: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """It is a mistake like one before accept: the method is not called, and the client is told `internal`."""
    called: list[str] = []

    async def declared() -> None: ...

    class Guarded(WebSocketHandler):
        @on("do", guards=[declared if overridden else guard])
        async def do(self, message: None) -> None:
            called.append("do")

    app = app_of(handler=Guarded)
    if overridden:
        app.dependency_overrides[declared] = guard
    async with serve(app) as server, connect(server) as ws:
        await send(ws, "do", id=1)
        assert (await receive(ws))["error"]["code"] == "internal"
    assert words in caplog.text
    assert called == []


@each_guard_that_decides_nothing
@pytest.mark.logs_errors
async def test_a_guard_that_decides_nothing_lets_nobody_in(
    guard: Any, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A guard that returns what it meant to await or to raise is a mistake, and answered 500."""
    async with serve(app_of(guard)) as server:
        with pytest.raises(InvalidStatus) as denied:
            await connect(server)
    assert denied.value.response.status_code == 500
    assert words in caplog.text


@pytest.mark.logs_errors
async def test_what_is_asked_again_is_ready_before_accept() -> None:
    """What `revalidate` needs of the connection scope is opened within the handshake's deadline."""

    async def pool() -> AsyncIterator[None]:
        await asyncio.Event().wait()
        yield

    async def still(held: Annotated[None, ConnectionScoped(pool)]) -> None: ...

    hub, auth = Hub(), JWTAuth(key=SECRET, algorithms=["HS256"], revalidate=still)
    async with serve(app_of(auth, hub=hub, limits=Limits(handshake=0.3))) as server:
        with pytest.raises(InvalidStatus) as denied:
            await arrive(server)
        assert denied.value.response.status_code == 503
        await eventually(lambda: hub.stats().users == 0)


async def test_a_plain_function_that_passes_the_question_on() -> None:
    """`revalidate` may be a plain function that returns the coroutine of another: what that says counts."""

    async def ask_somebody() -> bool:
        return False

    def still() -> Any:
        return ask_somebody()

    auth = JWTAuth(key=SECRET, algorithms=["HS256"], revalidate=still, revalidate_every=0.05)
    async with serve(app_of(auth)) as server, arrive(server) as ws:
        assert (await close_of(ws))[0] == 4403


@pytest.mark.parametrize(
    ("outcome", "code"),
    [(WebSocketException(4403, "out"), 4403), (HTTPException(401), 4401), (False, 4403), (HTTPException(503), None)],
)
@pytest.mark.logs_errors
async def test_what_ends_a_connection_that_is_asked_about(outcome: Any, code: int | None) -> None:
    """An exception that denies, or ``False``; who can't say (500 and more) lets it go on."""
    asked: list[None] = []

    async def still() -> Any:
        asked.append(None)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    auth = JWTAuth(key=SECRET, algorithms=["HS256"], revalidate=still, revalidate_every=0.1)
    async with serve(app_of(auth)) as server, arrive(server) as ws:
        if code is None:
            await eventually(lambda: len(asked) >= 3)
            assert await ask(ws) == "ada"
        else:
            assert (await close_of(ws))[0] == code


@pytest.mark.logs_errors
async def test_a_client_can_not_answer_in_place_of_the_application() -> None:
    """A parameter that would come from the query is refused, unless it is marked so."""

    async def still(principal: str) -> None: ...

    auth = JWTAuth(key=SECRET, algorithms=["HS256"], revalidate=still)
    with pytest.raises(ConfigurationError, match="parameter 'principal': a client could fill it in"):
        async with serve(app_of(auth)):
            pass


def test_an_authenticator_s_class_is_none() -> None:
    """``Depends(JWTAuth)`` would make one per request, of the query."""

    class Wrong(WebSocketHandler):
        def __init__(self, principal: Annotated[Principal, Depends(JWTAuth)]) -> None: ...

    with pytest.raises(ConfigurationError, match="JWTAuth is a class; make one authenticator"):
        WebSocketRouter().add_handler("/", Wrong)


async def by_hand(connection: HTTPConnection) -> None:
    with suppress(Deny):
        await j(connection)


async def test_it_ends_with_a_token_that_a_guard_looked_at_by_hand() -> None:
    """A guard that calls the authenticator itself, as for a login that is optional."""
    async with serve(app_of(by_hand)) as server, arrive(server, 2) as ws:
        assert await ask(ws) == "ada"
        assert (await close_of(ws))[0] == 4519


class Listed(WebSocketHandler):
    guards = [Security(j, scopes=["b"])]

    @on
    async def who(self, message: Who, principal: SignedIn) -> list[str]:
        return sorted(principal.scopes)


async def test_all_places_that_list_an_authenticator_ask_again() -> None:
    """Scopes that the router demands and scopes that the class demands hold for a fresh token too."""
    app = app_of(Security(j, scopes=["a"]), handler=Listed)
    for scope in ("a", "b"):
        async with serve(app) as server, arrive(server, scope="a b") as ws:
            assert await ask(ws) == ["a", "b"]
            await send(ws, "$auth", {"token": token(sub="ada", scope=scope)})
            assert (await close_of(ws))[0] == 4403


class Account:
    reads_user = True

    async def __call__(self, principal: SignedIn) -> str:
        return principal.id


account = Account()


class UsesAccount(Desk):
    def __init__(self, name: Annotated[str, Depends(account)]) -> None: ...


async def test_a_guard_may_be_used_in_the_constructor_too() -> None:
    """It is listed, so it is asked again."""
    async with serve(app_of(j, account, handler=UsesAccount)) as server, arrive(server) as ws:
        assert await ask(ws) == "ada"


async def rights(principal: SignedIn) -> Any:
    return principal.scopes


async def by_scoped(found: Annotated[Any, ConnectionScoped(rights)]) -> None: ...


class AsksScopes(Desk):
    async def on_connect(self, principal: Annotated[Principal, Security(j, scopes=["admin"])]) -> None: ...


@pytest.mark.parametrize("app", [lambda: app_of(j, by_scoped), lambda: app_of(j, handler=AsksScopes)])
@pytest.mark.logs_errors
async def test_what_would_be_kept_from_the_first_token_is_refused_at_start(app: Callable[[], FastAPI]) -> None:
    """A guard that goes by a `ConnectionScoped` value, and scopes that are asked in a hook."""
    with pytest.raises(ConfigurationError, match="also when a client renews its credential"):
        async with serve(app()):
            pass


async def test_who_is_not_found_is_not_asked_again() -> None:
    """`revalidate` of an authenticator that only a message asks does not end connections of nobody."""
    asked: list[None] = []
    auth = JWTAuth(key=SECRET, algorithms=["HS256"], revalidate_every=0.05)

    async def still(principal: Annotated[Principal, Depends(auth)]) -> None:
        asked.append(None)

    class Open(WebSocketHandler):
        @on
        async def who(self, message: Who) -> None: ...

        @on("private", guards=[auth])
        async def private(self, data: Any) -> None: ...

    auth.revalidate = still
    async with serve(app_of(handler=Open)) as server, connect(server) as ws:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(ws.recv(), 0.3)
        assert await ask(ws) == "$ok"
    assert not asked


class Late:
    """An authenticator that only a message asks, and what is asked about whom it finds."""

    def __init__(self) -> None:
        self.asked = 0
        self.holds = True
        self.auth = auth = JWTAuth(key=SECRET, algorithms=["HS256"], revalidate_every=0.05)

        async def still(principal: Annotated[Principal, Depends(auth)]) -> bool:
            self.asked += 1
            return self.holds

        auth.revalidate = still

        class Open(WebSocketHandler):
            @on(guards=[auth])
            async def who(self, message: Who) -> None: ...

        class Greets(Desk):
            async def on_connect(self, principal: Annotated[Principal, Depends(auth)]) -> None: ...

        self.handlers: list[type[WebSocketHandler]] = [Open, Greets]


@pytest.mark.parametrize("number", [0, 1])
async def test_who_is_found_late_is_asked_about_as_well(number: int) -> None:
    """Found by a message, or by a dependency of ``on_connect``: `revalidate` is called from then on, and may end it."""
    late = Late()
    async with serve(app_of(handler=late.handlers[number])) as server, arrive(server) as ws:
        await ask(ws)
        await eventually(lambda: late.asked >= 3)
        late.holds = False
        assert await close_of(ws) == (4403, "no longer allowed")


async def test_what_is_asked_about_who_is_found_late_is_open_by_then() -> None:
    """What `revalidate` needs of the connection scope is opened and closed by one task, once."""
    tasks: list[asyncio.Task[Any] | None] = []

    async def pool() -> AsyncIterator[None]:
        tasks.append(asyncio.current_task())
        yield
        tasks.append(asyncio.current_task())

    late = Late()

    async def still(held: Annotated[None, ConnectionScoped(pool)]) -> None:
        late.asked += 1

    late.auth.revalidate = still
    async with serve(app_of(handler=late.handlers[1])) as server, arrive(server) as ws:
        await ask(ws)
        await eventually(lambda: late.asked >= 3)
    assert len(tasks) == 2
    assert tasks[0] is tasks[1]


@pytest.mark.logs_errors
async def test_what_can_not_be_open_by_then_is_refused_at_start() -> None:
    """A `ConnectionScoped` value that `revalidate` of an authenticator needs which only messages ask."""
    late = Late()

    async def still(held: Annotated[None, ConnectionScoped(nested)]) -> None: ...

    late.auth.revalidate = still
    with pytest.raises(ConfigurationError, match="only messages ask this authenticator"):
        async with serve(app_of(handler=late.handlers[0])):
            pass


def test_scopes_that_an_authenticator_does_not_look_at_are_refused() -> None:
    """``Security(auth, scopes=[...])`` of one without `SecurityScopes` would demand nothing."""
    with pytest.raises(ConfigurationError, match=r"would demand nothing; list RequireScopes\('admin'\) after it"):
        WebSocketRouter(guards=[Security(APIKey(), scopes=["admin"])])


async def test_a_denial_leaves_no_timer() -> None:
    """A handshake that is denied after it had to wait leaves neither a session nor anything that fires later."""

    async def late() -> None:
        await asyncio.sleep(0)
        raise Deny(403)

    def sessions() -> int:
        gc.collect()
        return sum(isinstance(each, Session) for each in gc.get_objects())

    before = sessions()
    async with serve(app_of(j, late, limits=Limits(drain=60))) as server:
        for _ in range(10):
            with pytest.raises(InvalidStatus):
                await arrive(server)
        await eventually(lambda: sessions() <= before)

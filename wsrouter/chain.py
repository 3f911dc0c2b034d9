"""One handler under one chain of routers: everything that a session needs, bound once."""

from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, TypeAlias

from dependency_injector.containers import Container
from fastapi import params
from starlette.types import Scope

from wsrouter.annotations import unfolded
from wsrouter.checks import authenticators_in, below, check_guards, check_repeated, check_subprotocols
from wsrouter.codecs import Codec, Decoded, Frame, JSONCodec
from wsrouter.connection import message_encoder
from wsrouter.errors import ConfigurationError
from wsrouter.hub import Hub
from wsrouter.identity import Authenticator
from wsrouter.injection import Injected, Listing, Owner, Planner
from wsrouter.kinds import Kind, awaiting, is_plain, kind_of, name_of
from wsrouter.limits import Limits
from wsrouter.metering import FrameLimit
from wsrouter.plans import Plan
from wsrouter.redaction import redact_frames
from wsrouter.signatures import Dependency, Given, Needs, needs_of
from wsrouter.table import HandlerTable, Method

Reject: TypeAlias = Literal["http", "close", "auto"]


@dataclass(eq=False)
class Layer:
    """What one router carries for the handlers below it."""

    hub: Hub | None = None
    container: Container | None = None
    limits: Limits | None = None
    reject: Reject | None = None
    codecs: Sequence[Codec] | None = None
    direct: bool | None = None
    guards: list[Dependency] = field(default_factory=list[Dependency])
    middleware: list[Needs] = field(default_factory=list[Needs])
    frame_limits: list[FrameLimit] = field(default_factory=list[FrameLimit])
    exception_handlers: dict[type[Exception], Needs] = field(default_factory=dict[type[Exception], Needs])

    def add_middleware(self, around: Iterable[Needs], limits: Iterable[FrameLimit]) -> None:
        self.middleware.extend(around)
        self.frame_limits.extend(limits)

    @cached_property
    def own_hub(self) -> Hub:
        """The hub of an outermost router that was given none."""
        return Hub()


class Bound:
    """A method of the handler class with its plan in this chain."""

    __slots__ = ("call", "direct", "function", "injected", "name", "plan", "streams", "threaded")

    def __init__(self, method: Method, injected: Injected, *, direct: bool) -> None:
        self.name = method.needs.owner
        self.function = method.function
        if method.kind is Kind.ASYNC and is_plain(method.function):
            self.function = awaiting(method.function)
        self.streams = method.kind is Kind.ASYNC_GENERATOR
        self.threaded = method.kind is Kind.SYNC
        self.injected = injected
        self.plan = injected.plan
        """The plan where there are no overrides."""
        self.direct = direct and method.kind is Kind.ASYNC and self.plan.plain
        """Whether it can be awaited as it is, after nothing but coroutine functions that depend on each other: no
        middleware, no thread, no stream, nothing to be closed or cached."""
        self.call = self.plan.written_out(self.function) if self.direct else self.function


@dataclass(frozen=True, slots=True, eq=False)
class Revalidation:
    """What is asked again and again while a connection lives, and every how many seconds."""

    authenticator: Authenticator
    injected: Injected
    interval: float


class Chain:
    """A handler class bound to the routers that include it, outermost first.

    Args:
        table: what the class declares.
        layers: what the routers carry, outermost first; at least one.
        path: the whole path of the route.
        outside: what FastAPI calls before the guards: dependencies, and what they depend on.

    Raises:
        ConfigurationError: what depends on where a router is included: a ``Provide`` without a container,
            a ``yield`` dependency of a constructor, a cookie without a guard that checks origins.
    """

    def __init__(
        self, table: HandlerTable, layers: Sequence[Layer], path: str, outside: Sequence[Callable[..., Any]] = ()
    ) -> None:
        table.check(path)
        self.table = table
        self.path = path
        self.layers = tuple(layers)
        owners = [self._owner(layers[: depth + 1]) for depth in range(len(layers))]
        owner = owners[-1]
        self.hub = owner.hub
        self.limits: Limits = table.cls.limits or _innermost(layers, "limits") or Limits()
        self.reject: Reject = _innermost(layers, "reject") or "http"
        self.direct: bool = _innermost(layers, "direct") is not False
        self.codecs: Sequence[Codec] = _innermost(layers, "codecs") or (_json,)

        listed = [(guard, owners[depth]) for depth, layer in enumerate(layers) for guard in layer.guards]
        listed += [(guard, owner) for guard in table.guards]
        self._guards: dict[Callable[..., Any], list[Listing]] = {}
        for guard, lister in listed:
            self._guards.setdefault(guard.needs.call, []).append(Listing(lister, guard.scopes))
        self.guards: Sequence[Dependency] = [guard for guard, _ in listed]
        self.guard_plan = self.plan_guards({})
        for guard, lister in listed:
            for needs in guard.needs.walk():
                if (notice := getattr(needs.call, "listed_on", None)) is not None:
                    notice(lister.hub)

        self._findauthenticators_in(outside)
        place = f"{table.cls.__qualname__} at {path!r}"
        check_guards(place, self.guards, ambient=self.ambient, known=bool(self.outside))
        check_subprotocols(place, self.guards, table, [codec.subprotocol for codec in self.codecs])
        if self.renewable:
            hooks = [table.construct, *([table.on_connect.needs] if table.on_connect else [])]
            check_repeated(place, self.guards, hooks, outside, self.renewable)
        if self.sources:
            redact_frames()
        for authenticator in self.sources:
            authenticator.started()
        self.revalidations = [self._revalidation(each, owner) for each in self.sources if each.revalidate]

        self.construct = Injected(table.construct, owner, path, self._guards, ends=False)
        self.middleware = [
            self._inject(needs, owners[depth]) for depth, layer in enumerate(layers) for needs in layer.middleware
        ] + [self._inject(needs, owner) for needs in table.middleware]
        limits = [limit for layer in layers for limit in layer.frame_limits]
        self.frame_limits: Sequence[FrameLimit] = list(dict.fromkeys([*limits, *table.frame_limits]))
        self.exception_handlers: dict[type[Exception], Injected] = {}
        for depth, layer in enumerate(layers):
            for kind, needs in layer.exception_handlers.items():
                self.exception_handlers[kind] = self._inject(needs, owners[depth])

        self.methods = {type: self._bind(method, owner) for type, method in table.methods.items()}
        self.on_connect = self._bind(table.on_connect, owner) if table.on_connect else None
        self.on_message = self._bind(table.on_message, owner) if table.on_message else None
        self.on_disconnect = self._bind(table.on_disconnect, owner) if table.on_disconnect else None
        self._encoders = {codec: message_encoder(codec) for codec in self.codecs}
        self._decoders: Mapping[Codec, Callable[[Frame], Decoded]] = {
            codec: codec.decoder(table.schema) for codec in self.codecs
        }

    def plan_guards(
        self,
        overrides: Mapping[Any, Any],
        guards: Sequence[Dependency] | None = None,
        kept: Collection[Hashable] | None = None,
    ) -> Plan:
        """Return the plan that runs guards, by default all of them, outermost first.

        Args:
            overrides: what takes the place of some.
            guards: which, in this order.
            kept: keys of values that the connection keeps and that are not solved again.
        """
        planner = Planner(self.path, self._guards, overrides, kept)
        return planner.plan_guards(self.guards if guards is None else guards)

    def guards_of(self, authenticator: Authenticator) -> Sequence[Dependency]:
        """Return an authenticator and the guards that depend on it, each as often as it is listed, in their order.

        Those are the ones with the authenticator among their dependencies, those that say so (``reads_user``), and of
        those after it all that get the connection, and do not say that they do not.
        """
        found: list[Dependency] = []
        after = authenticator in self.outside
        for guard in self.guards:
            calls: list[Any] = [needs.call for needs in guard.needs.walk()]
            reads = after and guard.needs.uses(Given.CONNECTION, Given.HTTP, Given.WEBSOCKET)
            if (
                authenticator in calls
                or any(getattr(call, "reads_user", False) for call in calls)
                or (reads and getattr(guard.needs.call, "reads_user", None) is not False)
            ):
                found.append(guard)
            after = after or authenticator in calls
        return found

    def conceal(self, scope: Scope) -> None:
        """Take credentials out of a scope before anything reads it that a handler may see."""
        for authenticator in self.sources:
            authenticator.conceal(scope)

    def codec_for(self, offered: Sequence[str]) -> tuple[Codec, str | None]:
        """Return the codec that a client's subprotocols ask for, and the one of them that is echoed."""
        if self.table.raw:
            return self.codecs[0], next((each for each in offered if each in self.table.cls.subprotocols), None)
        for subprotocol in offered:
            for codec in self.codecs:
                if codec.subprotocol == subprotocol:
                    return codec, subprotocol
        return self.codecs[0], None

    def decoder(self, codec: Codec) -> Callable[[Frame], Decoded]:
        return self._decoders[codec]

    def encoder(self, codec: Codec) -> Callable[[Any], Frame]:
        """Return what makes the frame of what a handler sends."""
        return self.table.encode_raw if self.table.raw else self._encoders[codec]

    def exception_handler(self, exc: Exception) -> Injected | None:
        """Return the handler of the nearest class of an exception; of one class the innermost router's."""
        for kind in type(exc).__mro__:
            found = self.exception_handlers.get(kind)
            if found is not None:
                return found
        return None

    def _findauthenticators_in(self, outside: Sequence[Callable[..., Any]]) -> None:
        table = self.table
        hooks = [hook for hook in (table.on_connect, table.on_message, table.on_disconnect) if hook]
        methods = [*table.methods.values(), *hooks]
        first = [*(guard.needs for guard in self.guards), table.construct]
        first += [table.on_connect.needs] if table.on_connect else []
        later = [needs for method in methods for needs in (method.needs, *(guard.needs for guard in method.guards))]
        for layer in self.layers:
            later += [*layer.middleware, *layer.exception_handlers.values()]
        later += table.middleware
        self.outside = [call for call in outside if isinstance(call, Authenticator)]
        """Those that FastAPI asks before the guards."""
        self.authenticators = [*dict.fromkeys([*self.outside, *authenticators_in(first)])]
        """All that a handshake asks, in that order."""
        self.renewable = [each for each in self.authenticators if type(each).renew is not Authenticator.renew]
        """Those that take fresh tokens."""
        self.sources = [*dict.fromkeys([*self.authenticators, *authenticators_in(later)])]
        """All that look for a credential in the handshake, whenever they are asked."""
        self.ambient = any(authenticator.ambient for authenticator in self.sources)

    def _revalidation(self, authenticator: Authenticator, owner: Owner) -> Revalidation:
        function = authenticator.revalidate
        place = f"{name_of(authenticator)}, argument 'revalidate'"
        if not callable(function) or kind_of(function) not in (Kind.ASYNC, Kind.SYNC):
            raise ConfigurationError(f"{place}: expected a function without yield that raises to end a connection")
        needs = needs_of(function, place)
        for parameter in needs.request:
            marks = (*unfolded(parameter.annotation)[1], parameter.default)
            if not any(isinstance(mark, params.Param) for mark in marks):
                raise ConfigurationError(
                    f"{place}, parameter {parameter.name!r}: a client could fill it in with its query; annotate it with"
                    " Annotated[Principal, Depends(auth)] or the like, or mark it with Query()"
                )
        if authenticator not in self.authenticators and any(each.lasting for each in below(needs)):
            raise ConfigurationError(
                f"{place}: what is ConnectionScoped is opened at the handshake, and only messages ask this"
                " authenticator; use Depends, or list the authenticator in guards=[...] of the router or the class"
            )
        if not authenticator.revalidate_every > 0:
            raise ConfigurationError(f"{place}: revalidate_every={authenticator.revalidate_every!r} is not above zero")
        listings = self._guards.get(authenticator)
        lister = listings[0].owner if listings else owner
        return Revalidation(authenticator, self._inject(needs, lister), authenticator.revalidate_every)

    def _owner(self, layers: Sequence[Layer]) -> Owner:
        hub: Hub | None = _innermost(layers, "hub")
        return Owner(layers[0].own_hub if hub is None else hub, _innermost(layers, "container"))

    def _inject(self, needs: Needs, owner: Owner, before: Sequence[Dependency] = ()) -> Injected:
        return Injected(needs, owner, self.path, self._guards, before=before)

    def _bind(self, method: Method, owner: Owner) -> Bound:
        injected = self._inject(method.needs, owner, method.guards)
        return Bound(method, injected, direct=not self.middleware)


_json = JSONCodec()


def _innermost(layers: Sequence[Layer], name: str) -> Any:
    return next((value for layer in reversed(layers) if (value := getattr(layer, name)) is not None), None)

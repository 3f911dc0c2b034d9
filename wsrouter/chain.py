"""One handler under one chain of routers: everything that a session needs, bound once."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, TypeAlias

from dependency_injector.containers import Container
from starlette.types import Scope

from wsrouter.codecs import Codec, Decoded, Frame, JSONCodec
from wsrouter.hub import Hub
from wsrouter.identity import Authenticator
from wsrouter.injection import Injected, Listing, Owner, Planner
from wsrouter.limits import Limits
from wsrouter.plans import Plan
from wsrouter.signatures import Dependency, Kind, Needs
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
    guards: list[Dependency] = field(default_factory=list[Dependency])
    middleware: list[Needs] = field(default_factory=list[Needs])
    exception_handlers: dict[type[Exception], Needs] = field(default_factory=dict[type[Exception], Needs])

    @cached_property
    def own_hub(self) -> Hub:
        """The hub of an outermost router that was given none."""
        return Hub()


class Bound:
    """A method of the handler class with its plan in this chain."""

    __slots__ = ("direct", "function", "injected", "name", "streams", "threaded")

    def __init__(self, method: Method, injected: Injected, *, direct: bool) -> None:
        self.name = method.needs.owner
        self.function = method.function
        self.streams = method.kind is Kind.ASYNC_GENERATOR
        self.threaded = method.kind is Kind.SYNC
        self.injected = injected
        self.direct = direct
        """Whether it can be awaited as it is: no dependencies, no middleware, no thread, no stream."""


class Chain:
    """A handler class bound to the routers that include it, outermost first.

    Args:
        table: what the class declares.
        layers: what the routers carry, outermost first; at least one.
        path: the whole path of the route.

    Raises:
        ConfigurationError: what depends on where a router is included: a ``Provide`` without a container,
            a ``yield`` dependency of a constructor.
    """

    def __init__(self, table: HandlerTable, layers: Sequence[Layer], path: str) -> None:
        table.check(path)
        self.table = table
        self.path = path
        self.layers = tuple(layers)
        owners = [self._owner(layers[: depth + 1]) for depth in range(len(layers))]
        owner = owners[-1]
        self.hub = owner.hub
        self.limits: Limits = table.cls.limits or _innermost(layers, "limits") or Limits()
        self.reject: Reject = _innermost(layers, "reject") or "http"
        self.codecs: Sequence[Codec] = _innermost(layers, "codecs") or (_json,)

        listed = [(guard, owners[depth]) for depth, layer in enumerate(layers) for guard in layer.guards]
        listed += [(guard, owner) for guard in table.guards]
        self._guards: dict[Callable[..., Any], list[Listing]] = {}
        for guard, lister in listed:
            self._guards.setdefault(guard.needs.call, []).append(Listing(lister, guard.scopes))
        self.guards: Sequence[Dependency] = [guard for guard, _ in listed]
        hooks = [each for each in (table.on_connect, table.on_message, table.on_disconnect) if each is not None]
        methods = [*hooks, *table.methods.values()]
        self.authenticators = _authenticators(
            [*(guard.needs for guard in self.guards), table.construct, *(method.needs for method in methods)]
        )
        for authenticator in self.authenticators:
            authenticator.started()
        self.guard_plan = self.plan_guards({})

        self.construct = Injected(table.construct, owner, path, self._guards, ends=False)
        self.middleware = [
            self._inject(needs, owners[depth]) for depth, layer in enumerate(layers) for needs in layer.middleware
        ] + [self._inject(needs, owner) for needs in table.middleware]
        self.exception_handlers: dict[type[Exception], Injected] = {}
        for depth, layer in enumerate(layers):
            for kind, needs in layer.exception_handlers.items():
                self.exception_handlers[kind] = self._inject(needs, owners[depth])

        self.methods = {type: self._bind(method, owner) for type, method in table.methods.items()}
        self.on_connect = self._bind(table.on_connect, owner) if table.on_connect else None
        self.on_message = self._bind(table.on_message, owner) if table.on_message else None
        self.on_disconnect = self._bind(table.on_disconnect, owner) if table.on_disconnect else None
        self._decoders: Mapping[Codec, Callable[[Frame], Decoded]] = {
            codec: codec.decoder(table.schema) for codec in self.codecs
        }

    def plan_guards(self, overrides: Mapping[Any, Any]) -> Plan:
        """Return the plan that runs all guards, outermost first, with overrides in their place."""
        return Planner(self.path, self._guards, overrides, None).plan_guards(self.guards)

    def conceal(self, scope: Scope) -> None:
        """Take credentials out of a scope before anything reads it that a handler may see."""
        for authenticator in self.authenticators:
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

    def exception_handler(self, exc: Exception) -> Injected | None:
        """Return the handler of the nearest class of an exception; of one class the innermost router's."""
        for kind in type(exc).__mro__:
            found = self.exception_handlers.get(kind)
            if found is not None:
                return found
        return None

    def _owner(self, layers: Sequence[Layer]) -> Owner:
        hub: Hub | None = _innermost(layers, "hub")
        return Owner(layers[0].own_hub if hub is None else hub, _innermost(layers, "container"))

    def _inject(self, needs: Needs, owner: Owner) -> Injected:
        return Injected(needs, owner, self.path, self._guards)

    def _bind(self, method: Method, owner: Owner) -> Bound:
        injected = self._inject(method.needs, owner)
        direct = injected.plan.empty and not self.middleware and method.kind is Kind.ASYNC
        return Bound(method, injected, direct=direct)


_json = JSONCodec()


def _authenticators(every: Sequence[Needs]) -> Sequence[Authenticator]:
    """Return the authenticators among callables and what they depend on, each once."""
    calls: list[Any] = [needs.call for each in every for needs in each.walk()]
    return list(dict.fromkeys(call for call in calls if isinstance(call, Authenticator)))


def _innermost(layers: Sequence[Layer], name: str) -> Any:
    return next((value for layer in reversed(layers) if (value := getattr(layer, name)) is not None), None)

"""From what a callable needs to the plan that calls it, for one chain of routers."""

import inspect
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple, NoReturn

from dependency_injector.containers import Container
from fastapi.security import SecurityScopes
from fastapi.security.base import SecurityBase

from wsrouter._fastapi import RequestParameters, overrides_of
from wsrouter.containers import provider_of
from wsrouter.errors import ConfigurationError
from wsrouter.hub import Hub
from wsrouter.identity import Authenticator
from wsrouter.kinds import Kind, name_of
from wsrouter.plans import ConnectionScope, Do, Plan, Step
from wsrouter.signatures import Dependency, Given, Needs, Provided, needs_of
from wsrouter.tasks import manager_in_thread


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose hub and container a callable gets: those of the router that lists it."""

    hub: Hub
    container: Container | None = None


@dataclass(frozen=True, slots=True)
class Listing:
    """One place where a guard is listed, and the scopes that are demanded of it there."""

    owner: Owner
    scopes: tuple[str, ...] = ()


@lru_cache(maxsize=512)
def _needs_of_override(call: Callable[..., Any]) -> Needs:
    return needs_of(call, f"override {name_of(call)}")


@lru_cache(maxsize=2048)
def _parameters_of_override(needs: Needs, path: str) -> RequestParameters | None:
    return needs.parameters(path)


class GuardKey(NamedTuple):
    """Under which a connection keeps the value of a guard."""

    guard: Callable[..., Any]
    replaced: frozenset[Any]
    listing: Listing


def entering(needs: Needs) -> Callable[..., AbstractAsyncContextManager[Any]]:
    """Return what opens and closes a dependency that yields, a plain generator in the thread pool."""
    return asynccontextmanager(needs.call) if needs.kind is Kind.ASYNC_GENERATOR else manager_in_thread(needs.call)


class Planner:
    """Makes plans for the callables of one chain of routers.

    Args:
        path: the whole path of the route.
        guards: mapping of a guard to the places that list it, outermost first.
        overrides: ``dependency_overrides`` of the application.
        kept: keys of what the connection holds already; ``None`` before there is one, when every guard of
            the chain is taken to have passed without an override, unless guards are what is planned.
    """

    def __init__(
        self,
        path: str,
        guards: Mapping[Callable[..., Any], Sequence[Listing]],
        overrides: Mapping[Any, Any],
        kept: Collection[Hashable] | None,
    ) -> None:
        self._path = path
        self._guards = guards
        self._overrides = overrides
        self._kept = kept
        self._steps: list[Step] = []
        self._slots: dict[Hashable, int] = {}
        self._size = 0
        self._solving_guards = False
        self._fresh: dict[Callable[..., Any], int] = {}

    def plan(self, needs: Needs, owner: Owner, before: Sequence[Dependency] = ()) -> Plan:
        """Return the plan of a callable.

        Args:
            needs: what it needs.
            owner: whose hub and container it gets.
            before: guards of its own, which are solved afresh and before all else.
        """
        for guard in before:
            slot = self._dependency(guard, owner, lasting=None, scopes=(), fresh=True)
            self._fresh.setdefault(guard.needs.call, slot)
        arguments = self._arguments(needs, owner, lasting=None, scopes=())
        if not before and any(step.yields and not step.lasting for step in self._steps):
            # What ends with the call is opened last: scopes of anyio are closed in the reverse order or not at all.
            self._steps.sort(key=lambda step: not step.lasting)
        return Plan(self._steps, arguments, self._parameters(needs), self._size)

    def plan_guards(self, guards: Sequence[Dependency]) -> Plan:
        """Return the plan that runs guards one after another; their values stay with the connection.

        A guard that is listed twice runs once, for the outer place, unless the inner demands more scopes of it.
        """
        self._solving_guards = True
        for guard in guards:
            self._dependency(guard, self._guards[guard.needs.call][0].owner, lasting=None, scopes=())
            self._step(Do.CHECK, _unreachable)
        return Plan(self._steps, (), None, self._size)

    def _arguments(
        self, needs: Needs, owner: Owner, *, lasting: Hashable | None, scopes: tuple[str, ...]
    ) -> tuple[tuple[str, int], ...]:
        arguments: list[tuple[str, int]] = []
        for name, source in needs.sources:
            if isinstance(source, Dependency):
                slot = self._dependency(source, owner, lasting=lasting, scopes=scopes)
            elif isinstance(source, Provided):
                give = provider_of(owner.container, source.marker, source.owner)
                key = None if lasting is None else (lasting, name)
                slot = self._step(Do.PROVIDE, give, lasting=lasting is not None, key=key)
            else:
                slot = self._step(Do.GIVE, _giver(source, owner, scopes), lasting=lasting is not None)
            arguments.append((name, slot))
        return tuple(arguments)

    def _dependency(
        self,
        dependency: Dependency,
        owner: Owner,
        *,
        lasting: Hashable | None,
        scopes: tuple[str, ...],
        fresh: bool = False,
    ) -> int:
        """Plan a dependency, and return the slot of its value.

        Args:
            dependency: what is needed.
            owner: whose hub and container it gets, unless it is a guard.
            lasting: key of what lives as long as the connection and needs it, ``None`` where nothing does.
            scopes: those of ``Security`` around it.
            fresh: whether it is solved here although the connection may keep its value as that of a guard.
        """
        declared = dependency.needs.call
        if declared in self._fresh and lasting is None and dependency.use_cache:
            return self._fresh[declared]
        call = self._overrides.get(declared, declared)
        needs = dependency.needs if call is declared else _needs_of_override(call)
        replaced = _replaced(dependency.needs, self._overrides)
        scopes = (*scopes, *(scope for scope in dependency.scopes if scope not in scopes))
        listing = None if fresh else self._listing(declared, needs, scopes)
        is_guard = False
        key: Hashable | None = None
        if listing is not None:
            key = GuardKey(declared, replaced, listing)
            if key in self._kept if self._kept is not None else not self._solving_guards:
                return self._step(Do.READ, _unreachable, lasting=True, key=key)
            is_guard = self._solving_guards
            owner, scopes = listing.owner, listing.scopes
        held = owner if needs.uses(Provided, Given.HUB) else None
        seen = tuple(sorted(scopes)) if _sees_scopes(dependency) or needs.uses(Given.SCOPES) else ()
        place: Hashable = key
        if is_guard:
            lasting = None
        elif dependency.lasting or lasting is not None:
            each = None if dependency.use_cache else dependency
            place = key = lasting = ("lasting", declared, replaced, seen, held, each)
        else:
            place, key = (declared, replaced, seen, held), None
        if place in self._slots and (dependency.use_cache or is_guard):
            return self._slots[place]
        slot = self._step(
            Do(int(needs.kind)),
            entering(needs) if needs.kind.yields else needs.call,
            arguments=self._arguments(needs, owner, lasting=lasting, scopes=scopes),
            lasting=key is not None,
            name=name_of(needs.call),
            key=key,
            request=self._parameters(needs),
            concurrency=dependency.concurrency,
            guard=is_guard or fresh,
            gives_user=is_guard and getattr(declared, "gives_user", False) is True,
            authenticator=declared if isinstance(declared, Authenticator) else None,
        )
        self._slots.setdefault(place, slot)
        return slot

    def _listing(self, declared: Callable[..., Any], needs: Needs, scopes: tuple[str, ...]) -> Listing | None:
        """Return the outermost place that lists a guard with at least these scopes; ``None`` if there is none."""
        for listing in self._guards.get(declared, ()):
            if set(scopes) <= set(listing.scopes) or not needs.uses(Given.SCOPES):
                return listing
        return None

    def _parameters(self, needs: Needs) -> RequestParameters | None:
        return _parameters_of_override(needs, self._path) if self._overrides else needs.parameters(self._path)

    def _step(self, do: Do, call: Callable[..., Any], **rest: Any) -> int:
        slot = self._size
        self._size += 1
        self._steps.append(Step(do, slot, call, **rest))
        return slot


def _replaced(needs: Needs, overrides: Mapping[Any, Any]) -> frozenset[Any]:
    """Return which overrides hold in a tree of dependencies: a value is used again only where they are the same."""
    found: set[Any] = set()

    def look(needs: Needs) -> None:
        call = overrides.get(needs.call, needs.call)
        if call is not needs.call:
            found.add((needs.call, call))
            needs = _needs_of_override(call)
        for _, source in needs.sources:
            if isinstance(source, Dependency):
                look(source.needs)

    if overrides:
        look(needs)
    return frozenset(found)


def _sees_scopes(dependency: Dependency) -> bool:
    """Whether FastAPI takes calls of a dependency that are under other scopes for different calls."""
    needs = dependency.needs
    return (
        bool(dependency.scopes)
        or isinstance(inspect.unwrap(needs.call), SecurityBase)
        or any(source is Given.SCOPES for _, source in needs.sources)
        or any(_sees_scopes(source) for _, source in needs.sources if isinstance(source, Dependency))
    )


def _unreachable() -> NoReturn:
    raise AssertionError(
        "nothing is called: a guard's value is kept from the handshake on, and a checkpoint is the scope's"
    )


def _giver(given: Given, owner: Owner, scopes: tuple[str, ...]) -> Callable[[ConnectionScope], Any]:
    givers: dict[Given, Callable[[ConnectionScope], Any]] = {
        Given.CONNECTION: lambda scope: scope.connection,
        Given.HUB: lambda scope: owner.hub,
        Given.WEBSOCKET: lambda scope: scope.websocket(),
        Given.HTTP: lambda scope: scope.connection.http,
        Given.SCOPES: lambda scope: SecurityScopes(list(scopes)),
        Given.CLOSE: lambda scope: scope.close,
    }
    return givers[given]


class Injected:
    """A callable of one chain, with the plan to call it.

    Args:
        needs: what it needs.
        owner: whose hub and container it gets.
        path: the whole path of the route.
        guards: mapping of a guard of the chain to the places that list it.
        ends: whether there is an end at which its dependencies are closed.
        before: guards of its own, solved before all else whenever it is called.

    Raises:
        ConfigurationError: a dependency yields, and there is no such end.
    """

    __slots__ = ("_before", "_ends", "_guards", "_path", "needs", "owner", "plan")

    def __init__(
        self,
        needs: Needs,
        owner: Owner,
        path: str,
        guards: Mapping[Callable[..., Any], Sequence[Listing]],
        *,
        ends: bool = True,
        before: Sequence[Dependency] = (),
    ) -> None:
        self.needs = needs
        self.owner = owner
        self._path = path
        self._guards = guards
        self._ends = ends
        self._before = before
        self.plan = self._planned({}, None)

    def current(self, scope: ConnectionScope) -> Plan:
        """Return the plan that holds now: overrides are looked at only when there are any."""
        plan = self.plan
        if plan.empty:
            return plan
        if not scope.overrides():
            return plan
        return self._planned(overrides_of(scope.app), scope.values.keys())

    def _planned(self, overrides: Mapping[Any, Any], kept: Collection[Hashable] | None) -> Plan:
        plan = Planner(self._path, self._guards, overrides, kept).plan(self.needs, self.owner, self._before)
        if plan.yields and not self._ends:
            name = next(step.name for step in plan.steps if step.yields and not step.lasting)
            raise ConfigurationError(
                f"{self.needs.owner}: the dependency {name} yields, and a constructor has no end at which it could be"
                " closed; write ConnectionScoped(...) in place of Depends(...)"
            )
        return plan

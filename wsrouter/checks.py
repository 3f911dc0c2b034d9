"""Guards in places where they would not do what they are listed for: found at application start."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from wsrouter.errors import ConfigurationError
from wsrouter.identity import Authenticator
from wsrouter.kinds import name_of
from wsrouter.signatures import Dependency, Needs
from wsrouter.table import HandlerTable


def authenticators_in(roots: Iterable[Needs]) -> list[Authenticator]:
    """Return the authenticators among callables and what they depend on, each once."""
    calls: list[Any] = [needs.call for root in roots for needs in root.walk()]
    return [*dict.fromkeys(call for call in calls if isinstance(call, Authenticator))]


def check_guards(place: str, guards: Sequence[Dependency], *, ambient: bool, known: bool) -> None:
    """Check that a cookie has a guard for origins, and that guards that go by the user stand after who finds it.

    Args:
        place: what it is about, for the error.
        guards: in their order.
        ambient: whether browsers attach a credential by themselves.
        known: whether somebody before the guards finds the user.

    Raises:
        ConfigurationError: with the cure.
    """
    if ambient and not any(getattr(guard.needs.call, "checks_origin", False) for guard in guards):
        raise ConfigurationError(
            f"{place}: browsers attach its credential by themselves (a cookie), so anybody's page could connect in the"
            " user's name; list AllowOrigins('https://...') in guards"
        )
    asked = authenticators_in(guard.needs for guard in guards)
    for guard in guards:
        known = known or _any(guard.needs, "gives_user")
        if asked and not known and _any(guard.needs, "needs_user"):
            raise ConfigurationError(
                f"{place}: the guard {name_of(guard.needs.call)} goes by the user, and is listed before"
                f" {name_of(asked[0])}, which finds out who it is; list it after that"
            )


def check_subprotocols(place: str, guards: Sequence[Dependency], table: HandlerTable, codecs: Sequence[str]) -> None:
    """Check that the handler speaks a subprotocol that is demanded.

    Raises:
        ConfigurationError: it speaks none of them.
    """
    spoken = table.cls.subprotocols if table.raw else codecs
    for guard in guards:
        wanted = getattr(guard.needs.call, "subprotocols", None)
        if wanted is not None and not set(wanted) & set(spoken):
            raise ConfigurationError(
                f"{place}: {name_of(guard.needs.call)} demands {' or '.join(sorted(wanted))}, and the handler speaks"
                f" {' and '.join(spoken) or 'none'}, so nobody would get in; add it to"
                f" {'subprotocols of the class' if table.raw else 'codecs of the router'}"
            )


def check_repeated(
    place: str,
    guards: Sequence[Dependency],
    hooks: Sequence[Needs],
    outside: Sequence[Callable[..., Any]],
    renewable: Sequence[Authenticator],
) -> None:
    """Check that what goes by a credential is asked again when the client renews it.

    Args:
        place: what it is about, for the error.
        guards: they run again.
        hooks: the constructor and ``on_connect``, whose dependencies do not.
        outside: what FastAPI calls, once.
        renewable: the authenticators that take fresh tokens.

    Raises:
        ConfigurationError: something is asked once only.
    """
    listed: list[Any] = [guard.needs.call for guard in guards]
    once: list[Any] = [*outside, *(needs.call for hook in hooks for needs in hook.walk())]
    for call in once:
        if getattr(call, "reads_user", False) and call not in listed:
            raise ConfigurationError(
                f"{place}: {name_of(call)} goes by the user, and would not be asked again when a client renews its"
                " credential; list it in guards=[...] of the router or the class"
            )
    for guard in guards:
        for dependency in below(guard.needs):
            if dependency.lasting and _asks(dependency, renewable):
                raise ConfigurationError(
                    f"{place}: the guard {name_of(guard.needs.call)} goes by {name_of(dependency.needs.call)}, which"
                    " ConnectionScoped keeps also when a client renews its credential; use Depends"
                )
    for hook in hooks:
        for dependency in below(hook):
            if dependency.scopes and _asks(dependency, renewable):
                raise ConfigurationError(
                    f"{hook.owner}: the scopes of Security({name_of(dependency.needs.call)}) are asked once there, also"
                    " when a client renews its credential; list it in guards=[...] of the router or the class"
                )


def below(needs: Needs) -> Iterable[Dependency]:
    """Yield all that a callable depends on."""
    for _, source in needs.sources:
        if isinstance(source, Dependency):
            yield source
            yield from below(source.needs)


def _asks(dependency: Dependency, authenticators: Sequence[Authenticator]) -> bool:
    return not set(authenticators).isdisjoint(authenticators_in([dependency.needs]))


def _any(needs: Needs, attribute: str) -> bool:
    return any(getattr(each.call, attribute, False) for each in needs.walk())

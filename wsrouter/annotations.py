"""Annotations of a callable's parameters, resolved where they are written."""

import functools
import inspect
import sys
import typing
from collections.abc import Callable, Sequence
from dataclasses import InitVar
from typing import Annotated, Any, Final, get_args, get_origin, get_type_hints

import typing_extensions

from wsrouter.errors import ConfigurationError

_ALIASES: Final = (typing_extensions.TypeAliasType, getattr(typing, "TypeAliasType", typing_extensions.TypeAliasType))
# Narrowed to these, a value would be of a partially unknown type.
_INIT_VAR: Any = InitVar
_LIST: Any = list


def parameters_of(call: Callable[..., Any], owner: str) -> list[inspect.Parameter]:
    """Return the parameters of a callable, their annotations resolved.

    Raises:
        ConfigurationError: an annotation can't be resolved, or there is no signature.
    """
    try:
        signature = inspect.signature(call)
    except (TypeError, ValueError) as exc:
        raise ConfigurationError(f"{owner}: {call!r} has no signature that could be read ({exc})") from exc
    return [
        parameter.replace(annotation=_resolve(call, parameter, owner))
        for parameter in signature.parameters.values()
        if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]


def _resolve(call: Callable[..., Any], parameter: inspect.Parameter, owner: str) -> Any:
    if parameter.annotation is parameter.empty:
        return parameter.empty
    holder = type("Annotations", (), {"__annotations__": {parameter.name: parameter.annotation}})
    names = _globals(call, parameter.name)
    try:
        annotation = get_type_hints(holder, globalns=names, localns=names, include_extras=True)[parameter.name]
    except NameError as exc:
        raise ConfigurationError(
            f"{owner}, parameter {parameter.name!r}: the annotation {parameter.annotation!r} can't be resolved ({exc});"
            " define or import the name at module level, not in a function or under TYPE_CHECKING"
        ) from exc
    except Exception as exc:
        raise ConfigurationError(
            f"{owner}, parameter {parameter.name!r}: the annotation {parameter.annotation!r} can't be resolved"
            f" ({type(exc).__name__}: {exc}); write one that Python can evaluate"
        ) from exc
    return annotation.type if isinstance(annotation, _INIT_VAR) else annotation


def _globals(call: Any, name: str) -> dict[str, Any]:
    while isinstance(call, functools.partial):
        call = call.func
    if inspect.isclass(call):
        maker = next(base for base in call.__mro__ if "__init__" in vars(base))
        if _is_dataclass_itself(maker):
            # A field's annotation is resolved where it is written, which may be another module.
            for base in maker.__mro__:
                if _is_dataclass_itself(base) and name in inspect.get_annotations(base):
                    return vars(sys.modules[base.__module__])
        call = call.__init__
    elif not inspect.isroutine(call):
        call = type(call).__call__
    found: dict[str, Any] = getattr(inspect.unwrap(call), "__globals__", {})
    return found


def _is_dataclass_itself(cls: type) -> bool:
    return "__dataclass_fields__" in vars(cls)


def unfolded(annotation: Any) -> tuple[Any, Sequence[Any]]:
    """Return the type of an annotation and the metadata of its ``Annotated``, seen through the names of aliases."""
    while isinstance(annotation, _ALIASES):
        annotation = annotation.__value__
    if get_origin(annotation) is not Annotated:
        return annotation, ()
    type_, *metadata = get_args(annotation)
    return type_, metadata


def holds_metadata(annotation: Any, wanted: Callable[[object], bool], seen: tuple[Any, ...] = ()) -> bool:
    """Whether an ``Annotated`` within an annotation, such as in a member of a union, has wanted metadata."""
    if any(annotation is each for each in seen):
        return False
    seen = (*seen, annotation)
    if isinstance(annotation, _ALIASES):
        return holds_metadata(annotation.__value__, wanted, seen)
    if get_origin(annotation) is Annotated and any(wanted(each) for each in annotation.__metadata__):
        return True
    arguments: list[Any] = [get_origin(annotation), *get_args(annotation)]
    if isinstance(annotation, _LIST):  # the parameters of a Callable
        arguments.extend(annotation)
    return any(holds_metadata(part, wanted, seen) for part in arguments if part is not None)

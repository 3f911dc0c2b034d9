"""What may be the payload of a method: pydantic can validate it, and can tell the members of a union apart."""

import inspect
from dataclasses import is_dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, is_typeddict

from pydantic import BaseModel, Field, TypeAdapter
from pydantic.fields import FieldInfo
from pydantic.types import Discriminator

from wsrouter.errors import ConfigurationError
from wsrouter.schemas import adapter


def check_payload(payload: Any, owner: str) -> TypeAdapter[Any]:
    """Return what validates a payload.

    Raises:
        ConfigurationError: pydantic can't.
    """
    try:
        found = adapter(payload)
        found.rebuild(raise_errors=True)
    except Exception as exc:
        why = str(exc).splitlines()[0].split(". ")[0]
        shown = inspect.formatannotation(payload)
        raise ConfigurationError(
            f"{owner}: pydantic can't validate the payload {shown} ({why}); annotate it with a Message, or with another"
            " type that pydantic knows"
        ) from exc
    return found


def is_open(annotation: Any) -> bool:
    """Whether a type has variables that nothing stands for yet: ``T``, ``list[T]``."""
    variables: tuple[object, ...] = getattr(annotation, "__parameters__", ())
    return isinstance(annotation, TypeVar) or (bool(variables) and not inspect.isclass(annotation))


def discriminated(payload: Any, owner: str) -> Any:
    """Return a payload type whose union of models, if it is one, has a discriminator.

    Raises:
        ConfigurationError: none is declared, and the models have no field by which to tell them apart.
    """
    if get_origin(payload) is Annotated:
        base, *metadata = get_args(payload)
        if any(
            isinstance(mark, Discriminator) or (isinstance(mark, FieldInfo) and mark.discriminator) for mark in metadata
        ):
            return payload
        discriminated(base, owner)
        return payload
    if get_origin(payload) not in (Union, UnionType):
        return payload
    models = [member for member in get_args(payload) if _is_model(member)]
    if len(models) < 2:
        return payload
    if all(isinstance(model, type) and issubclass(model, BaseModel) for model in models):
        for name in models[0].model_fields:
            if all(_is_tag(model, name) for model in models):
                tagged: Any = Annotated[Union[tuple(models)], Field(discriminator=name)]  # noqa: UP007
                rest = [member for member in get_args(payload) if member is NoneType or not _is_model(member)]
                return Union[(tagged, *rest)] if rest else tagged
    shown = inspect.formatannotation(payload)
    raise ConfigurationError(
        f"{owner}: nothing tells the members of {shown} apart; give each a field with a Literal of its own and write"
        " Annotated[..., Field(discriminator='that field')]"
    )


def _is_tag(model: type[BaseModel], name: str) -> bool:
    field = model.model_fields.get(name)
    return field is not None and get_origin(field.annotation) is Literal


def _is_model(type_: Any) -> bool:
    bare = get_origin(type_) or type_
    return inspect.isclass(bare) and (issubclass(bare, BaseModel) or is_dataclass(bare) or is_typeddict(bare))

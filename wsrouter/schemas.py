"""What pydantic is to do with all that clients send, whatever their models say of it."""

from typing import Any, Final, cast

from pydantic import TypeAdapter
from pydantic_core import CoreSchema, SchemaValidator
from typing_extensions import TypeIs

_MANY: Final = frozenset(
    {"list", "tuple", "set", "frozenset", "deque", "dict", "frozendict", "ordered-dict", "counter"}
)
"""Schemas of values with any number of items, which can stop at the first that is wrong."""

_WITHIN: Final = frozenset(
    {
        "arguments_schema",
        "choices",
        "definitions",
        "extras_keys_schema",
        "extras_schema",
        "fields",
        "items_schema",
        "json_schema",
        "keys_schema",
        "lax_schema",
        "python_schema",
        "schema",
        "steps",
        "strict_schema",
        "values_schema",
        "var_args_schema",
        "var_kwargs_schema",
    }
)
"""Where a schema has others."""


def adapter(payload: Any) -> TypeAdapter[Any]:
    """Return pydantic's adapter of a type, floats without NaN wherever the type has no rule of its own."""
    try:
        return TypeAdapter(payload, config={"allow_inf_nan": False})
    except Exception as exc:
        if getattr(exc, "code", None) != "type-adapter-config-unused":
            raise
        return TypeAdapter(payload)


def validator(adapter: TypeAdapter[Any], *, fail_fast: bool = True) -> SchemaValidator:
    """Return what validates what a client sends.

    Floats refuse NaN and infinities, also those of models within, unless their model or field says
    ``allow_inf_nan=True``: no config of the outer model reaches them.

    Args:
        adapter: of the type; all that it refers to is defined.
        fail_fast: whether to stop at the first wrong item of each list, set, tuple and mapping, unless its field says
            ``fail_fast=False``. To gather the mistakes of a large frame takes many times as long as to read a good one.
    """
    schema = cast(CoreSchema, _tightened(adapter.core_schema, fail_fast))
    # Without those that classes have: a model within would be validated by its own rules.
    return SchemaValidator(schema, {"allow_inf_nan": False}, _use_prebuilt=False)


def _tightened(node: Any, fail_fast: bool) -> Any:
    """Return a copy of a schema, or of what holds schemas: a list, or a mapping of names or tags."""
    if _is_sequence(node):
        return type(node)(_tightened(each, fail_fast) for each in node)
    if not _is_mapping(node):
        return node
    kind = node.get("type")
    if not isinstance(kind, str):
        return {name: _tightened(each, fail_fast) for name, each in node.items()}
    copy = {key: _tightened(each, fail_fast) if key in _WITHIN else each for key, each in node.items()}
    if "config" in node:  # that of a model, which holds for what is in it down to the next
        copy["config"] = {"allow_inf_nan": False, **node["config"]}
    if fail_fast and kind in _MANY:
        copy.setdefault("fail_fast", True)
    return copy


def _is_mapping(node: object) -> TypeIs[dict[str, Any]]:
    return isinstance(node, dict)


def _is_sequence(node: object) -> TypeIs[list[Any] | tuple[Any, ...]]:
    return isinstance(node, list | tuple)

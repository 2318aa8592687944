"""Converts a field's type, which is data, into the Python annotation that pydantic and DSPy use."""

from __future__ import annotations

import typing
from collections.abc import Callable, Iterable
from typing import Annotated, Any, Literal, Optional

import pydantic
from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    FailFast,
    Field,
    Strict,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
)
from pydantic_core import PydanticCustomError

from dspex.scalars import WHOLE, whole
from dspex.signatures.classes import attribute, enum_class, object_class
from dspex.signatures.field import SignatureField
from dspex.signatures.types import (
    ArrayType,
    BooleanType,
    EnumType,
    FieldType,
    IntegerType,
    MapType,
    NumberType,
    ObjectType,
    OptionalType,
    Scalar,
    StringType,
)


class _First(FailFast):
    """pydantic's `FailFast`, made hashable: `typing` hashes the argument of `Optional`."""

    def __hash__(self) -> int:
        return hash(type(self))


_FIRST = _First()


def annotation(field_type: FieldType, *, strict: bool = True, name: str = "Value") -> Any:
    """The Python annotation of a type, with its constraints.

    Args:
        strict: refuse values that need coercion (`"3"` for an integer). False is for what DSPy is shown, and for
            reading an LM's answer.
        name: the class name of a nested object that has no title.
    """
    bare, limits = unconstrained(field_type, strict=strict, name=name), constraints(field_type)
    inner = field_type.anyOf[0] if isinstance(field_type, OptionalType) else field_type
    if strict and isinstance(inner, NumberType):
        limits["allow_inf_nan"] = False
    limited = Annotated[bare, Field(**limits)] if limits else bare
    return Annotated[limited, WHOLE] if strict and isinstance(inner, IntegerType) else limited


def constraints(field_type: FieldType) -> dict[str, Any]:
    """The type's own constraints as keywords of `pydantic.Field` (`ge`, `max_length`, ...)."""
    if isinstance(field_type, OptionalType):
        return constraints(field_type.anyOf[0])
    given = field_type.model_dump(include=set(_KEYWORDS))
    return {_KEYWORDS[key]: value for key, value in given.items()}


def unconstrained(field_type: FieldType, *, strict: bool = True, name: str = "Value") -> Any:
    """The Python annotation of a type without its own constraints; its members keep theirs."""
    match field_type:
        case StringType(enum=None):
            return StrictStr if strict else str
        case StringType(enum=values) | EnumType(enum=values):
            if field_type.title is not None and not strict and (made := enum_class(field_type)) is not None:
                return made
            literal = Literal[values]  # type: ignore[valid-type]  # pyright: ignore[reportInvalidTypeForm]
            return Annotated[literal, BeforeValidator(_one_of(values or ()))] if strict else literal
        case IntegerType():
            return StrictInt if strict else int
        case NumberType():
            return StrictFloat if strict else float
        case BooleanType():
            return StrictBool if strict else bool
        case ArrayType():
            item = annotation(field_type.items, strict=strict, name=f"{name}Item")
            # For a list in a message, only the first wrong item is reported: an error takes a kilobyte, and a list may
            # have half a million items.
            return Annotated[list[item], Strict(), _FIRST] if strict else list[item]  # type: ignore[valid-type]
        case MapType():
            value = annotation(field_type.additionalProperties, strict=strict, name=f"{name}Value")
            key = Annotated[StrictStr, AfterValidator(_unicode)] if strict else str
            return Annotated[dict[key, value], Strict()] if strict else dict[key, value]  # type: ignore[valid-type]
        case OptionalType(anyOf=(inner, _)):
            return Optional[unconstrained(inner, strict=strict, name=name)]  # noqa: UP045
        case ObjectType(title=None):
            return _nested(field_type, strict=strict, name=name)
        case ObjectType():
            return _nested(field_type, strict=True, name=name) if strict else object_class(field_type, annotation)


def forget_types() -> None:
    """Clear the caches of `typing`, which keep 128 types of each kind, whatever their size."""
    for forget in getattr(typing, "_cleanups", ()):
        forget()


def object_model(name: str, fields: Iterable[SignatureField]) -> type[pydantic.BaseModel]:
    """A strict pydantic model of these fields, read and dumped by alias: no other key is allowed."""
    members: dict[str, Any] = {}
    for field in fields:
        default = ... if field.required else field.default
        members[attribute(field.name, members)] = (
            annotation(field.type, name=field.name.title()),
            Field(default=default, alias=field.name),
        )
    return pydantic.create_model(name, __config__=_CONFIG, **members)


_CONFIG = ConfigDict(extra="forbid", allow_inf_nan=False, hide_input_in_errors=True, protected_namespaces=())


def _nested(field_type: ObjectType, *, strict: bool, name: str) -> type[pydantic.BaseModel]:
    members: dict[str, Any] = {}
    for key, member in field_type.properties.items():
        inner = annotation(member, strict=strict, name=f"{name}{key.title()}")
        required = key in field_type.required
        if not (required or strict):
            inner = Optional[inner]  # an LM may write null for a member that it omits  # noqa: UP045
        default = ... if required else None
        members[attribute(key, members)] = (inner, Field(default=default, alias=key, description=member.description))
    return pydantic.create_model(name, __config__=_CONFIG, **members)


MAX_NAMED = 50
"""How many values of an enum an error lists."""

MAX_SHOWN = 100
"""How many characters of each are shown."""

_KEYWORDS = {
    "minimum": "ge",
    "maximum": "le",
    "exclusiveMinimum": "gt",
    "exclusiveMaximum": "lt",
    "multipleOf": "multiple_of",
    "minLength": "min_length",
    "maxLength": "max_length",
    "minItems": "min_length",
    "maxItems": "max_length",
}


def _one_of(values: tuple[Scalar, ...]) -> Callable[[object], object]:
    """A check for one of the values. Unlike Python and its `Literal`, JSON distinguishes 1 and True."""
    allowed = {(type(value), value) for value in values}
    listed = ", ".join(map(_shown, values[:MAX_NAMED])) + (", ..." if len(values) > MAX_NAMED else "")
    text = {"text": f"input should be one of {listed}"}

    def check(value: object) -> object:
        value = whole(value)
        try:
            if (type(value), value) in allowed:
                return value
        except TypeError:  # not hashable: a list or an object
            pass
        # Not a ValueError: pydantic keeps that with its traceback, a kilobyte for each wrong value.
        raise PydanticCustomError("one_of", "{text}", text)

    return check


def _shown(value: Scalar) -> str:
    text = repr(value)
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."


def _unicode(key: str) -> str:
    try:
        key.encode()
    except UnicodeEncodeError:
        raise ValueError("a key holds characters that are not valid Unicode") from None
    return key

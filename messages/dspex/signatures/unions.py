"""Annotations of unions for values of a message: by what a value is, one type is tried, or few.

pydantic alone tries each type, and reports the errors of each: a map of many wrong values would have as many errors as
values times types, and each takes a kilobyte.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, NamedTuple, Union

from pydantic import BaseModel, Discriminator, GetCoreSchemaHandler, Tag
from pydantic_core import CoreSchema

from dspex.signatures.references import RefType
from dspex.signatures.scalar_types import BooleanType, ConstType, EnumType, IntegerType, NumberType, StringType
from dspex.signatures.types import (
    AnyArrayType,
    AnyMapType,
    ArrayType,
    FieldType,
    MapType,
    NullType,
    ObjectType,
    OptionalType,
    TaggedUnionType,
    TupleType,
    UnionType,
)

KINDS: Mapping[type[Any], str] = {
    bool: "boolean",
    int: "number",
    float: "number",
    str: "string",
    list: "array",
    dict: "object",
    type(None): "null",
}
"""What a value of JSON is, by its type in Python."""

_OF_TYPES: Mapping[type[Any], str] = {
    StringType: "string",
    IntegerType: "number",
    NumberType: "number",
    BooleanType: "boolean",
    ArrayType: "array",
    AnyArrayType: "array",
    TupleType: "array",
    MapType: "object",
    AnyMapType: "object",
    ObjectType: "object",
    TaggedUnionType: "object",
    NullType: "null",
}


def kinds_of(field_type: FieldType | NullType) -> frozenset[str]:
    """What the values of a type are."""
    match field_type:
        case EnumType(enum=values):
            return frozenset(KINDS[type(value)] for value in values)
        case ConstType(const=value):
            return frozenset({KINDS[type(value)]})
        case OptionalType(anyOf=choices) | UnionType(anyOf=choices):
            return frozenset[str]().union(*map(kinds_of, choices))
        case RefType():
            return field_type.known("kinds", kinds_of)
        case _:
            known = _OF_TYPES.get(type(field_type))
            return frozenset(KINDS.values()) if known is None else frozenset({known})


def by_kind(choices: Sequence[tuple[FieldType | NullType, Any]]) -> Any:
    """The annotation of a union, from its types and their annotations."""
    members: dict[str, Any] = {}
    for kind in dict.fromkeys(KINDS.values()):
        fitting = [annotation for choice, annotation in choices if kind in kinds_of(choice)]
        if fitting:
            several = len(fitting) > 1
            members[kind] = Annotated[Union[tuple(fitting)], _one_error(kind)] if several else fitting[0]  # noqa: UP007
    if len(members) == 1:
        return next(iter(members.values()))
    tags = {python: f"<{kind}>" for python, kind in KINDS.items() if kind in members}

    def kind_of(value: object) -> str | None:
        # What was read is written by this, too: objects are models then, and pydantic would warn, and quote the value.
        known = dict if isinstance(value, BaseModel) else list if isinstance(value, tuple) else type(value)
        return tags.get(known)

    told = Discriminator(
        kind_of,
        custom_error_type="wrong_kind",
        custom_error_message=f"input should be {' or '.join(members)}",
    )
    tagged = tuple(Annotated[one, Tag(f"<{kind}>")] for kind, one in members.items())
    return Annotated[Union[tagged], told]  # noqa: UP007


def by_property(name: str, choices: Sequence[tuple[tuple[str, ...], Any]]) -> Any:
    """The annotation of a union of objects, from the texts of the property for each, and their annotations."""
    tags = {tag: f"<{number}>" for number, (known, _) in enumerate(choices) for tag in known}

    def told(value: object) -> str | None:
        given = value.model_dump(by_alias=True) if isinstance(value, BaseModel) else value
        tag = given.get(name) if isinstance(given, dict) else None
        return tags.get(tag) if isinstance(tag, str) else None

    listed = ", ".join(repr(tag)[:MAX_SHOWN] for tag in list(tags)[:MAX_NAMED])
    # In a message of pydantic's, braces are places for values.
    text = f"{name} should be one of {listed}".replace("{", "(").replace("}", ")")
    members = tuple(Annotated[one, Tag(f"<{number}>")] for number, (_, one) in enumerate(choices))
    by = Discriminator(told, custom_error_type="told_by", custom_error_message=text)
    return Annotated[Union[members], by]  # noqa: UP007


MAX_NAMED = 20
MAX_SHOWN = 100


class _OneError(NamedTuple):
    """Reports one error for a value that fits none of a union."""

    text: str

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        schema: Any = handler(source)
        if schema["type"] == "union":
            schema |= {"custom_error_type": "fits_none", "custom_error_message": self.text}
        known: CoreSchema = schema
        return known


def _one_error(kind: str) -> _OneError:
    return _OneError(f"fits none of the types for {'an' if kind[0] in 'ao' else 'a'} {kind}")

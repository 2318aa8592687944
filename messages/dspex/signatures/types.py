"""The types of signature fields: a subset of JSON Schema 2020-12, as data.

| in JSON Schema                                              | in the arrow form                        |
|-------------------------------------------------------------|------------------------------------------|
| {"type": "string" | "integer" | "number" | "boolean"}       | str, int, float, bool                    |
| {"type": "string", "format": "date"} (`formats.py`)         | datetime.date, UUID, Decimal, ...        |
| {"enum": ["a", 1, true]}                                    | Literal['a', 1, True]                    |
| {"const": "a"}                                              | (no arrow form)                          |
| {} (any JSON value)                                         | Any                                      |
| {"type": "array", "items": T}, {"type": "array"}            | list[T], list                            |
| {"type": "object", "additionalProperties": T}               | dict[str, T]                             |
| {"type": "object"}                                          | dict                                     |
| {"type": "object", "properties": {...}, "required": [...]}  | (no arrow form)                          |
| {"anyOf": [T, {"type": "null"}]}                            | Optional[T], T | None                    |
| {"anyOf": [T, U, ...]}                                      | Union[T, U], T | U                       |
| {"oneOf": [T, U], "discriminator": {"propertyName": "p"}}   | (no arrow form)                          |
| {"type": "array", "prefixItems": [T, U], "minItems": 2, ... | tuple[T, U]                              |
| {"type": "array", "items": T, "uniqueItems": true}          | set[T]                                   |
| {"type": "string", "format": "image"} (`media.py`)          | dspy.Image, dspy.Audio, dspy.File        |
| {"type": "object", "format": "history"} (`attachments.py`)  | dspy.History                             |
| {"$ref": "#/$defs/Node"} (`references.py`)                  | (no arrow form)                          |

A string may also have `enum` or `pattern`; constraints are JSON Schema's own keywords (minimum, maxLength, minItems,
...). A pattern finds a part of a text, unless it has ^ and $, and is in the syntax of Rust's regular expressions
(https://docs.rs/regex), where \\d and \\w are Unicode's.

`title` on an object or an enum is the name of the class that it was read from, which the LM sees. An object with a
title is shown as pydantic shows a class: without `additionalProperties` unless it is given, with `default` of
properties, and with `docstring` as its description where `description` is that of the place where it stands. Some
formats of prompts show more of a class: the `attribute` of a property whose name is another, the `names` of an enum's
values. These two and `docstring` are not JSON Schema's words.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, cast

from pydantic import (
    Discriminator,
    FailFast,
    Field,
    Tag,
    WithJsonSchema,
    model_validator,
)

from dspex.model import Sparse
from dspex.signatures.references import RefType
from dspex.signatures.scalar_types import (
    LATER,
    MAX_MEMBERS,
    BooleanType,
    ConstType,
    Count,
    EnumType,
    IntegerType,
    NumberType,
    PropertyName,
    StringType,
    Type,
    check_distinct,
    check_ordered,
)

DIALECT = "https://json-schema.org/draft/2020-12/schema"
MAX_DEPTH = 8
MAX_CHOICES = 32
"""The types of one union. Each is tried for a value."""


class AnyType(Type):
    """Any JSON value."""

    model_config = LATER


class AnyArrayType(Type):
    """A list of any JSON values."""

    model_config = LATER

    type: Literal["array"] = "array"


class AnyMapType(Type):
    """A map from text to any JSON values."""

    model_config = LATER

    type: Literal["object"] = "object"
    additionalProperties: Literal[True] | None = None


class HistoryType(Type):
    """The turns of a conversation before: `{"messages": [{"question": ..., "answer": ...}]}`."""

    model_config = LATER

    type: Literal["object"] = "object"
    format: Literal["history"]


class ArrayType(Type):
    """A list whose items all have the same type; with `uniqueItems`, no item is there twice: a set."""

    type: Literal["array"] = "array"
    items: FieldType
    minItems: Count | None = None
    maxItems: Count | None = None
    uniqueItems: Literal[True] | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        check_ordered(self.minItems, self.maxItems)
        return self


class MapType(Type):
    """A map from text to values that all have the same type."""

    type: Literal["object"] = "object"
    additionalProperties: FieldType


class ObjectType(Type):
    """A nested object with named properties. Those not in `required` may be absent; no other key is allowed.

    `additionalProperties` only says whether the LM is told that no other key is allowed.
    """

    type: Literal["object"] = "object"
    docstring: str | None = Field(default=None, max_length=2_000)
    properties: dict[PropertyName, FieldType] = Field(min_length=1, max_length=MAX_MEMBERS)
    required: Annotated[tuple[str, ...], FailFast()] = ()
    additionalProperties: Annotated[
        Literal[False] | None, WithJsonSchema({"const": False, "type": "boolean", "default": False})
    ] = Field(default=None, json_schema_extra={"default": False})

    @model_validator(mode="before")
    @classmethod
    def _told(cls, value: Any) -> Any:
        untitled = isinstance(value, Mapping) and value.get("title") is None
        return {"additionalProperties": False} | dict(value) if untitled else value

    @model_validator(mode="after")
    def _check(self) -> Self:
        check_distinct(self.required)
        for name in self.required:
            if name not in self.properties:
                raise ValueError(f"required: '{name}' is not one of the properties")
        return self


class TupleType(Type):
    """A list of as many items as there are types, each of its own type. `minItems` and `maxItems` must say so."""

    model_config = LATER

    type: Literal["array"] = "array"
    prefixItems: tuple[FieldType, ...] = Field(min_length=1, max_length=MAX_MEMBERS)
    minItems: Count
    maxItems: Count

    @model_validator(mode="after")
    def _check(self) -> Self:
        count = len(self.prefixItems)
        if (self.minItems, self.maxItems) != (count, count):
            raise ValueError(f"minItems and maxItems must be {count}, as many as there are prefixItems")
        return self


class NullType(Type):
    """null; only as a member of `anyOf`."""

    type: Literal["null"] = "null"


class OptionalType(Type):
    """A value or null."""

    anyOf: tuple[FieldType, NullType]


class UnionType(Type):
    """A value that fits one of several types, one of which may be null.

    A value is valid if it fits any of them, in whatever order. Where one is read that fits several (an LM's answer, a
    typed result), pydantic takes the nearest, and of equals the first
    (https://docs.pydantic.dev/latest/concepts/unions/#smart-mode).
    """

    model_config = LATER

    anyOf: tuple[Member, ...] = Field(min_length=2, max_length=MAX_CHOICES)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if sum(isinstance(one, NullType) for one in self.anyOf) > 1:
            raise ValueError("null is listed twice")
        return self


class Discriminating(Sparse):
    """The property by which the types of a union are told apart. `mapping`, which repeats them, is not kept."""

    propertyName: PropertyName

    @model_validator(mode="before")
    @classmethod
    def _without_mapping(cls, value: Any) -> Any:
        return {key: item for key, item in value.items() if key != "mapping"} if isinstance(value, dict) else value


class TaggedUnionType(Type):
    """One of several objects, told apart by a property that each requires as a `const` or an `enum` of texts."""

    model_config = LATER

    oneOf: tuple[ObjectOrRef, ...] = Field(min_length=2, max_length=MAX_CHOICES)
    discriminator: Discriminating

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not any(isinstance(one, RefType) for one in self.oneOf):
            check_told_apart(self)
        return self

    @property
    def objects(self) -> tuple[ObjectType, ...]:
        """The types themselves."""
        found = tuple(resolved(one) for one in self.oneOf)
        for number, one in enumerate(found):
            if not isinstance(one, ObjectType):
                raise ValueError(f"oneOf.{number}: is no object with properties")
        return cast("tuple[ObjectType, ...]", found)


def check_told_apart(union: TaggedUnionType) -> None:
    """Check that the property tells the types apart.

    Raises:
        ValueError: a type does not require it as a `const` or an `enum` of texts, or two have a text in common.
    """
    name, known = union.discriminator.propertyName, set[str]()
    for number, one in enumerate(union.objects):
        tags = tags_of(one, name)
        if not tags or name not in one.required:
            raise ValueError(
                f"oneOf.{number}: needs '{name}' as a required property that is a const or an enum of texts"
            )
        if not known.isdisjoint(tags):
            raise ValueError(f"oneOf.{number}: '{name}' is that of another one")
        known.update(tags)


def resolved(field_type: FieldType) -> FieldType:
    """The type itself, or what it refers to."""
    while isinstance(field_type, RefType):
        field_type = field_type.target
    return field_type


def tags_of(one: ObjectType, name: str) -> tuple[str, ...]:
    """The texts that a property of an object may be; empty if it may be others."""
    given = one.properties.get(name)
    match given and resolved(given):
        case ConstType(const=str() as value):
            return (value,)
        case StringType(enum=values) if values:
            return values
        case _:
            return ()


def takes_null(field_type: FieldType) -> bool:
    """Whether the type says that null fits. An input of such a type may be left out."""
    if isinstance(field_type, RefType):
        return field_type.known("takes null", takes_null)
    return isinstance(field_type, OptionalType) or (
        isinstance(field_type, UnionType)
        and any(isinstance(one, NullType) or takes_null(one) for one in field_type.anyOf)
    )


def _kind(value: Any) -> str | None:
    """The tag of the model that reads this map, for the union below. Tags in <> are left out of error paths."""
    if isinstance(value, Type):
        return f"<{type(value).__name__.removesuffix('Type').lower()}>"
    if not isinstance(value, dict):
        return None
    if "$ref" in value:
        return "<ref>"
    if value.get("type") in ("array", "object") and "const" not in value and "enum" not in value:
        return _container(value)
    match value:
        case {"anyOf": [_, {"type": "null"}] | (_, {"type": "null"})}:
            return "<optional>"
        case {"anyOf": _}:
            return "<union>"
        case {"oneOf": _}:
            return "<taggedunion>"
        case {"const": _}:
            return "<const>"
        case {"enum": _} if value.get("type") != "string":
            return "<enum>"
        case {"type": "string" | "integer" | "number" | "boolean" as name}:
            return f"<{name}>"
        case {"type": _}:
            return None
        case _:
            return "<any>"


def _container(value: dict[str, Any]) -> str:
    match value:
        case {"type": "object", "format": "history"}:
            return "<history>"
        case {"type": "object", "properties": _}:
            return "<object>"
        case {"type": "object", "additionalProperties": given} if given is not True:
            return "<map>"
        case {"type": "object"}:
            return "<anymap>"
        case {"prefixItems": _}:
            return "<tuple>"
        case {"items": _}:
            return "<array>"
        case _:
            return "<anyarray>"


FieldType = Annotated[
    Annotated[StringType, Tag("<string>")]
    | Annotated[IntegerType, Tag("<integer>")]
    | Annotated[NumberType, Tag("<number>")]
    | Annotated[BooleanType, Tag("<boolean>")]
    | Annotated[EnumType, Tag("<enum>")]
    | Annotated[ConstType, Tag("<const>")]
    | Annotated[AnyType, Tag("<any>")]
    | Annotated[AnyArrayType, Tag("<anyarray>")]
    | Annotated[AnyMapType, Tag("<anymap>")]
    | Annotated[HistoryType, Tag("<history>")]
    | Annotated[ArrayType, Tag("<array>")]
    | Annotated[MapType, Tag("<map>")]
    | Annotated[ObjectType, Tag("<object>")]
    | Annotated[TupleType, Tag("<tuple>")]
    | Annotated[UnionType, Tag("<union>")]
    | Annotated[TaggedUnionType, Tag("<taggedunion>")]
    | Annotated[OptionalType, Tag("<optional>")]
    | Annotated[RefType, Tag("<ref>")],
    Discriminator(
        _kind,
        custom_error_type="unknown_type",
        custom_error_message=(
            "is not a known type: use string, integer, number, boolean, array, object, enum, const, anyOf, oneOf "
            "(with a discriminator), $ref, or {} for any JSON value"
        ),
    ),
]

ObjectOrRef = Annotated[
    Annotated[ObjectType, Tag("<object>")] | Annotated[RefType, Tag("<ref>")],
    Discriminator(
        lambda value: (
            "<ref>" if isinstance(value, RefType) or (isinstance(value, dict) and "$ref" in value) else "<object>"
        )
    ),
]
"""One of the objects that a property tells apart."""

Member = Annotated[
    Annotated[FieldType, Tag("<type>")] | Annotated[NullType, Tag("<null>")],
    Discriminator(lambda value: "<null>" if is_null(value) else "<type>"),
]
"""One of a union."""


def is_null(of: object) -> bool:
    """Whether a type, or data for one, is null."""
    return isinstance(of, NullType) or (isinstance(of, Mapping) and of.get("type") == "null")

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

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    ConfigDict,
    Discriminator,
    FailFast,
    Field,
    JsonValue,
    PlainSerializer,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    StringConstraints,
    Tag,
    ValidatorFunctionWrapHandler,
    WithJsonSchema,
    WrapValidator,
    model_validator,
)

from dspex.model import Sparse
from dspex.scalars import WHOLE
from dspex.signatures.formats import Format, check_pattern

DIALECT = "https://json-schema.org/draft/2020-12/schema"
MAX_DEPTH = 8
MAX_MEMBERS = 256
MAX_CHOICES = 32
"""The types of one union. Each is tried for a value."""

Count = Annotated[StrictInt, Field(ge=0, le=1_000_000), WHOLE]
Whole = Annotated[StrictInt, WHOLE]
Scalar = StrictStr | StrictBool | Whole
# With names, so that the contract's schemas have them, too.
EnumScalar = Annotated[Literal["integer", "boolean"], Field(title="EnumScalar")]
ConstScalar = Annotated[Literal["string", "integer", "boolean"], Field(title="ConstScalar")]
PropertyName = Annotated[str, Field(pattern=r"^[^\x00-\x1F\x7F]{1,128}$")]
Identifier = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]{0,63}$")]
Names = tuple[Identifier, ...]
Title = Annotated[StrictStr, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")]
"""One line of text: it stands in prompts, and is the name of a class."""


def _as_given(value: Any, read: ValidatorFunctionWrapHandler) -> float:
    number: float = read(value)
    return value if type(value) is int and abs(value) <= MAX_EXACT else number


def _itself(value: float) -> float:
    return value


MAX_EXACT = 2**53
"""Up to this, each whole number is a double."""

Bound = Annotated[
    StrictFloat,
    WrapValidator(_as_given),
    PlainSerializer(_itself, return_type=int | float),
    WithJsonSchema({"type": "number"}),
]
"""A number as it is written, as the LM sees it: 0 stays 0, and does not become 0.0."""

_LATER = ConfigDict(json_schema_extra={"x-later": True})
"""Of a type that the first v1 did not have: an older reader does not know it (`dspex.schemas.growth`)."""


class Type(Sparse):
    """What all types have."""

    title: Title | None = None
    description: str | None = Field(default=None, max_length=2_000)
    default: JsonValue = None
    examples: tuple[JsonValue, ...] | None = Field(default=None, min_length=1, max_length=MAX_MEMBERS)
    attribute: Identifier | None = None


class StringType(Type):
    """Text; `enum` restricts it to the listed values, `minLength` and `maxLength` count characters.

    `format` and `pattern` are checked, unlike in many readers of JSON Schema.
    """

    type: Literal["string"] = "string"
    docstring: str | None = Field(default=None, max_length=2_000)
    enum: tuple[StrictStr, ...] | None = Field(default=None, min_length=1, max_length=MAX_MEMBERS)
    names: Names | None = None
    minLength: Count | None = None
    maxLength: Count | None = None
    format: Format | None = None
    pattern: Annotated[StrictStr, AfterValidator(check_pattern)] | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        _distinct(self.enum)
        _named(self.enum, self.names)
        _ordered(self.minLength, self.maxLength)
        others = [key for key in ("minLength", "maxLength", "format", "pattern") if getattr(self, key) is not None]
        if self.enum and others:
            raise ValueError(f"enum already lists the values: remove {' and '.join(others)}")
        return self


class IntegerType(Type):
    """A whole number."""

    type: Literal["integer"] = "integer"
    minimum: Whole | None = None
    maximum: Whole | None = None
    exclusiveMinimum: Whole | None = None
    exclusiveMaximum: Whole | None = None
    multipleOf: Annotated[StrictInt, Field(gt=0), WHOLE] | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        low = max((b for b in (self.minimum, _add(self.exclusiveMinimum, 1)) if b is not None), default=None)
        high = min((b for b in (self.maximum, _add(self.exclusiveMaximum, -1)) if b is not None), default=None)
        _ordered(low, high)
        step = self.multipleOf or 1
        if low is not None and high is not None and high // step * step < low:
            raise ValueError("no number lies within the bounds")
        return self


class NumberType(Type):
    """A finite number, whole or not (IEEE 754 double)."""

    type: Literal["number"] = "number"
    minimum: Bound | None = None
    maximum: Bound | None = None
    exclusiveMinimum: Bound | None = None
    exclusiveMaximum: Bound | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        low = max((b for b in (self.minimum, _next(self.exclusiveMinimum, math.inf)) if b is not None), default=None)
        high = min((b for b in (self.maximum, _next(self.exclusiveMaximum, -math.inf)) if b is not None), default=None)
        if low == math.inf or high == -math.inf:
            raise ValueError("no number lies within the bounds")
        _ordered(low, high)
        return self


class BooleanType(Type):
    """true or false."""

    type: Literal["boolean"] = "boolean"


class EnumType(Type):
    """One of the listed values, of any scalar type. `type` may say so as well, if all are of one."""

    docstring: str | None = Field(default=None, max_length=2_000)
    enum: tuple[Scalar, ...] = Field(min_length=1, max_length=MAX_MEMBERS)
    names: Names | None = None
    type: EnumScalar | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        _distinct(self.enum)
        _named(self.enum, self.names)
        for value in self.enum:
            _of_type(value, self.type)
        return self


class ConstType(Type):
    """One value: text, a whole number, true or false. `type` may say so as well."""

    model_config = _LATER

    const: Scalar
    type: ConstScalar | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        _of_type(self.const, self.type)
        return self


class AnyType(Type):
    """Any JSON value."""

    model_config = _LATER


class AnyArrayType(Type):
    """A list of any JSON values."""

    model_config = _LATER

    type: Literal["array"] = "array"


class AnyMapType(Type):
    """A map from text to any JSON values."""

    model_config = _LATER

    type: Literal["object"] = "object"
    additionalProperties: Literal[True] | None = None


class ArrayType(Type):
    """A list whose items all have the same type; with `uniqueItems`, no item is there twice: a set."""

    type: Literal["array"] = "array"
    items: FieldType
    minItems: Count | None = None
    maxItems: Count | None = None
    uniqueItems: Literal[True] | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        _ordered(self.minItems, self.maxItems)
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
        _distinct(self.required)
        for name in self.required:
            if name not in self.properties:
                raise ValueError(f"required: '{name}' is not one of the properties")
        return self


class TupleType(Type):
    """A list of as many items as there are types, each of its own type. `minItems` and `maxItems` must say so."""

    model_config = _LATER

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

    model_config = _LATER

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

    model_config = _LATER

    oneOf: tuple[ObjectType, ...] = Field(min_length=2, max_length=MAX_CHOICES)
    discriminator: Discriminating

    @model_validator(mode="after")
    def _check(self) -> Self:
        name, known = self.discriminator.propertyName, set[str]()
        for number, one in enumerate(self.oneOf):
            tags = tags_of(one, name)
            if not tags or name not in one.required:
                raise ValueError(
                    f"oneOf.{number}: needs '{name}' as a required property that is a const or an enum of texts"
                )
            if not known.isdisjoint(tags):
                raise ValueError(f"oneOf.{number}: '{name}' is that of another one")
            known.update(tags)
        return self


def tags_of(one: ObjectType, name: str) -> tuple[str, ...]:
    """The texts that a property of an object may be; empty if it may be others."""
    match one.properties.get(name):
        case ConstType(const=str() as value):
            return (value,)
        case StringType(enum=values) if values:
            return values
        case _:
            return ()


def takes_null(field_type: FieldType) -> bool:
    """Whether the type says that null fits. An input of such a type may be left out."""
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
        case {"type": _} | {"$ref": _}:
            return None
        case _:
            return "<any>"


def _container(value: dict[str, Any]) -> str:
    match value:
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
    | Annotated[ArrayType, Tag("<array>")]
    | Annotated[MapType, Tag("<map>")]
    | Annotated[ObjectType, Tag("<object>")]
    | Annotated[TupleType, Tag("<tuple>")]
    | Annotated[UnionType, Tag("<union>")]
    | Annotated[TaggedUnionType, Tag("<taggedunion>")]
    | Annotated[OptionalType, Tag("<optional>")],
    Discriminator(
        _kind,
        custom_error_type="unknown_type",
        custom_error_message=(
            "is not a known type: use string, integer, number, boolean, array, object, enum, const, anyOf, oneOf "
            "(with a discriminator), or {} for any JSON value"
        ),
    ),
]

Member = Annotated[
    Annotated[FieldType, Tag("<type>")] | Annotated[NullType, Tag("<null>")],
    Discriminator(lambda value: "<null>" if is_null(value) else "<type>"),
]
"""One of a union."""


def is_null(of: object) -> bool:
    """Whether a type, or data for one, is null."""
    return isinstance(of, NullType) or (isinstance(of, Mapping) and of.get("type") == "null")


def _distinct(values: tuple[Any, ...] | None) -> None:
    keys = [(type(value), value) for value in values or ()]
    if len(set(keys)) != len(keys):
        raise ValueError("a value is listed twice")


def _named(values: tuple[Any, ...] | None, names: tuple[str, ...] | None) -> None:
    _distinct(names)
    if names is not None and len(names) != len(values or ()):
        raise ValueError("names has not one for each value of enum")


def _ordered(low: float | None, high: float | None) -> None:
    if low is not None and high is not None and low > high:
        raise ValueError("the lower bound is above the upper bound")


def _of_type(value: Scalar, name: str | None) -> None:
    if name not in (None, {str: "string", int: "integer", bool: "boolean"}[type(value)]):
        raise ValueError(f"a value is no {name}")


def _add(bound: int | None, step: int) -> int | None:
    return None if bound is None else bound + step


def _next(bound: float | None, towards: float) -> float | None:
    return None if bound is None else math.nextafter(bound, towards)

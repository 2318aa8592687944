"""What all types of signature fields have, and the types of scalars: text, numbers, true and false, listed values."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    ConfigDict,
    Field,
    JsonValue,
    PlainSerializer,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    StringConstraints,
    ValidatorFunctionWrapHandler,
    WithJsonSchema,
    WrapValidator,
    model_validator,
)

from dspex.model import Sparse
from dspex.scalars import WHOLE
from dspex.signatures.formats import Format, check_pattern
from dspex.signatures.media import KINDS, Kind

MAX_MEMBERS = 256

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

LATER = ConfigDict(json_schema_extra={"x-later": True})
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
    format: Literal[Format, Kind] | None = None
    pattern: Annotated[StrictStr, AfterValidator(check_pattern)] | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        check_distinct(self.enum)
        _named(self.enum, self.names)
        check_ordered(self.minLength, self.maxLength)
        others = [key for key in ("minLength", "maxLength", "format", "pattern") if getattr(self, key) is not None]
        if self.enum and others:
            raise ValueError(f"enum already lists the values: remove {' and '.join(others)}")
        if self.format in KINDS and others != ["format"]:
            raise ValueError(f"'{self.format}' is checked as it is: remove {' and '.join(set(others) - {'format'})}")
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
        check_ordered(low, high)
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
        check_ordered(low, high)
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
        check_distinct(self.enum)
        _named(self.enum, self.names)
        for value in self.enum:
            _of_type(value, self.type)
        return self


class ConstType(Type):
    """One value: text, a whole number, true or false. `type` may say so as well."""

    model_config = LATER

    const: Scalar
    type: ConstScalar | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        _of_type(self.const, self.type)
        return self


def check_distinct(values: tuple[Any, ...] | None) -> None:
    keys = [(type(value), value) for value in values or ()]
    if len(set(keys)) != len(keys):
        raise ValueError("a value is listed twice")


def _named(values: tuple[Any, ...] | None, names: tuple[str, ...] | None) -> None:
    check_distinct(names)
    if names is not None and len(names) != len(values or ()):
        raise ValueError("names has not one for each value of enum")


def check_ordered(low: float | None, high: float | None) -> None:
    if low is not None and high is not None and low > high:
        raise ValueError("the lower bound is above the upper bound")


def _of_type(value: Scalar, name: str | None) -> None:
    if name not in (None, {str: "string", int: "integer", bool: "boolean"}[type(value)]):
        raise ValueError(f"a value is no {name}")


def _add(bound: int | None, step: int) -> int | None:
    return None if bound is None else bound + step


def _next(bound: float | None, towards: float) -> float | None:
    return None if bound is None else math.nextafter(bound, towards)

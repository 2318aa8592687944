"""Which scalars fit a type: whether every value of one type is a value of another."""

from __future__ import annotations

import math
from typing import Any

from pydantic import TypeAdapter, ValidationError

from dspex.signatures.annotations import annotation
from dspex.signatures.scalar_types import (
    MAX_MEMBERS,
    BooleanType,
    ConstType,
    EnumType,
    IntegerType,
    NumberType,
    Scalar,
    StringType,
)
from dspex.signatures.types import AnyType, FieldType, HistoryType

Bounds = tuple[float, float]
"""The lowest and the highest value, both inclusive. Integers stay integers, however large."""


def includes(wide: FieldType, narrow: FieldType) -> bool:
    """Whether every value of `narrow` fits `wide`. Exact for scalars without patterns; False if one is not a scalar."""
    values = _listed(narrow)
    if values is not None:
        validator: TypeAdapter[Any] = TypeAdapter(annotation(wide))
        return all(_accepts(validator, value) for value in values)
    match wide, narrow:
        case (AnyType(), _) | (HistoryType(), HistoryType()):
            return True
        case StringType(enum=None, format=given), StringType(format=other) if given not in (None, other):
            return False
        case StringType(enum=None, pattern=given), StringType(pattern=other) if given not in (None, other):
            return False  # it may, but who says so?
        case StringType(enum=None), StringType():
            return within(bounds(narrow.minLength, narrow.maxLength), bounds(wide.minLength, wide.maxLength))
        case IntegerType(), IntegerType():
            # Here the range has more than one value, so the steps must agree.
            same_steps = (narrow.multipleOf or 1) % (wide.multipleOf or 1) == 0
            return same_steps and within(_whole_numbers(narrow), _whole_numbers(wide))
        case NumberType(), IntegerType():
            low, high = _whole_numbers(narrow)
            return within((_double(low), _double(high)), _numbers(wide))
        case NumberType(), NumberType():
            return within(_numbers(narrow), _numbers(wide))
        case _:
            return False


def _accepts(validator: TypeAdapter[Any], value: Scalar) -> bool:
    try:
        validator.validate_python(value)
    except ValidationError:
        return False
    return True


def members(field_type: FieldType) -> tuple[Scalar, ...] | None:
    """The values of an enum."""
    if isinstance(field_type, ConstType):
        return (field_type.const,)
    return field_type.enum if isinstance(field_type, StringType | EnumType) else None


def _listed(field_type: FieldType) -> tuple[Scalar, ...] | None:
    """All values of a type with few values, else None."""
    match field_type:
        case StringType(enum=None, maxLength=0, format=None, pattern=None):
            return ("",)
        case ConstType(const=value):
            return (value,)
        case StringType(enum=values) | EnumType(enum=values):
            return values
        case BooleanType():
            return (False, True)
        case IntegerType():
            low, high = _whole_numbers(field_type)
            step = field_type.multipleOf or 1
            if isinstance(low, int) and isinstance(high, int) and (high - low) // step < MAX_MEMBERS:
                return tuple(range(low, high + 1, step))
    return None


def bounds(low: float | None, high: float | None) -> Bounds:
    return (-math.inf if low is None else low, math.inf if high is None else high)


def within(inner: Bounds, outer: Bounds) -> bool:
    return outer[0] <= inner[0] and inner[1] <= outer[1]


def _whole_numbers(field_type: IntegerType) -> Bounds:
    step = field_type.multipleOf or 1
    after, before = field_type.exclusiveMinimum, field_type.exclusiveMaximum
    lows = [field_type.minimum, None if after is None else after + 1]
    highs = [field_type.maximum, None if before is None else before - 1]
    return (
        max((-(-low // step) * step for low in lows if low is not None), default=-math.inf),
        min((high // step * step for high in highs if high is not None), default=math.inf),
    )


def _numbers(field_type: NumberType) -> Bounds:
    after, before = field_type.exclusiveMinimum, field_type.exclusiveMaximum
    lows = [field_type.minimum, None if after is None else math.nextafter(after, math.inf)]
    highs = [field_type.maximum, None if before is None else math.nextafter(before, -math.inf)]
    return (
        max((low for low in lows if low is not None), default=-math.inf),
        min((high for high in highs if high is not None), default=math.inf),
    )


def _double(number: float) -> float:
    """The number rounded to a double, as validation compares it with bounds."""
    try:
        return float(number)
    except OverflowError:
        return math.inf if number > 0 else -math.inf

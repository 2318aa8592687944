"""Generates readable values that fit a field's type, enum and constraints.

A type is compiled to a function when the program is built; a run only calls it.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping
from typing import Any

from adapters.mock.draws import Draws
from adapters.mock.texts import formed
from adapters.port import AdapterError
from dspex import ErrorCode
from dspex.ids import canonical_json
from dspex.signatures.scalar_types import BooleanType, ConstType, EnumType, IntegerType, NumberType, StringType
from dspex.signatures.types import (
    AnyArrayType,
    AnyMapType,
    AnyType,
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

Make = Callable[[Draws], Any]

TRIES = 20
"""How often an item is made again for a set, for each that it must have."""

KEYS = ("amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "heath")


_OF_ANY: Mapping[type[Any], FieldType] = {
    AnyType: StringType(),
    AnyArrayType: ArrayType(items=StringType()),
    AnyMapType: MapType(additionalProperties=StringType()),
}
"""What is made where any value fits."""


def maker(field_type: FieldType, name: str) -> Make:
    """Compile a type to a function that makes values of it. Texts contain `name`.

    Raises:
        AdapterError: `permanent`: a text has a pattern that no text was found for.
    """
    field_type = _OF_ANY.get(type(field_type), field_type)
    match field_type:
        case StringType(enum=None, format=None, pattern=None):
            return _text(field_type, name.replace("_", " "))
        case StringType(enum=None):
            return formed(field_type, name)
        case StringType(enum=values) | EnumType(enum=values):
            return _one_of(values or ())
        case ConstType(const=value):
            return _one_of((value,))
        case IntegerType():
            return _integer(field_type)
        case NumberType():
            return _number(field_type)
        case BooleanType():
            return lambda draws: draws.below(2) == 1
        case ArrayType():
            return _array(field_type, name)
        case MapType():
            return _map(field_type, name)
        case ObjectType():
            return _object(field_type)
        case OptionalType() | UnionType() | TaggedUnionType() | TupleType():
            return _several(field_type, name)
    raise AssertionError(field_type)


def _several(field_type: OptionalType | UnionType | TaggedUnionType | TupleType, name: str) -> Make:
    match field_type:
        case OptionalType(anyOf=(inner, _)):
            some = maker(inner, name)
            return lambda draws: some(draws) if draws.below(4) else None
        case UnionType(anyOf=choices) | TaggedUnionType(oneOf=choices):
            makers = [_null if isinstance(choice, NullType) else maker(choice, name) for choice in choices]
            return lambda draws: draws.choice(makers)(draws)
        case TupleType(prefixItems=items):
            each = [maker(item, name) for item in items]
            return lambda draws: [item(draws) for item in each]


def _null(_draws: Draws) -> None:
    return None


def _one_of(listed: tuple[Any, ...]) -> Make:
    return lambda draws: draws.choice(listed)


def least_size(field_type: FieldType) -> int:
    """The approximate size of the smallest value of this type, in characters and members."""
    match field_type:
        case StringType():
            return 1 + (field_type.minLength or 0)
        case ArrayType():
            return 1 + (field_type.minItems or 0) * least_size(field_type.items)
        case TupleType(prefixItems=items):
            return 1 + sum(map(least_size, items))
        case UnionType(anyOf=choices) | TaggedUnionType(oneOf=choices):
            return min(1 if isinstance(choice, NullType) else least_size(choice) for choice in choices)
        case ObjectType():
            return 1 + sum(least_size(field_type.properties[name]) for name in field_type.required)
        case _:
            return 1


def _text(field_type: StringType, name: str) -> Make:
    least, most = field_type.minLength or 0, field_type.maxLength

    def make(draws: Draws) -> str:
        text = f"mock {name} {draws.below(1 << 16):04x}"
        if len(text) < least:
            text = (f"{text} " * (least // len(text) + 1))[:least]
        if most is not None and len(text) > most:
            text = text[-most:] if most else ""  # keeps the end, in which texts differ
        return text

    return make


def _integer(field_type: IntegerType) -> Make:
    step = field_type.multipleOf or 1
    low = _inner(max, field_type.minimum, field_type.exclusiveMinimum, 1)
    high = _inner(min, field_type.maximum, field_type.exclusiveMaximum, -1)
    if low is None:
        low = 0 if high is None else min(0, high - 99 * step)
    least = -(-low // step)
    count = 100 if high is None else high // step - least + 1
    return lambda draws: (least + draws.below(count)) * step


def _inner(pick: Callable[..., int], inclusive: int | None, exclusive: int | None, inwards: int) -> int | None:
    bounds = [bound for bound in (inclusive, None if exclusive is None else exclusive + inwards) if bound is not None]
    return pick(bounds) if bounds else None


def _number(field_type: NumberType) -> Make:
    lowest, highest = -sys.float_info.max, sys.float_info.max
    low, high = lowest, highest
    if field_type.minimum is not None:
        low = field_type.minimum
    if field_type.exclusiveMinimum is not None:
        low = max(low, math.nextafter(field_type.exclusiveMinimum, math.inf))
    if field_type.maximum is not None:
        high = field_type.maximum
    if field_type.exclusiveMaximum is not None:
        high = min(high, math.nextafter(field_type.exclusiveMaximum, -math.inf))
    if low == lowest:
        low = 0.0 if high == highest else min(0.0, max(lowest, high - 100))
    if high == highest:
        high = min(highest, low + 100)

    def make(draws: Draws) -> float:
        part = draws.fraction()
        exact = min(max(low * (1 - part) + high * part, low), high)
        short = round(exact, 2) + 0.0  # not -0.0
        return short if low <= short <= high else exact

    return make


def _array(field_type: ArrayType, name: str) -> Make:
    item = maker(field_type.items, name)
    least, most = field_type.minItems or 0, field_type.maxItems

    def make(draws: Draws) -> list[Any]:
        length = max(least, 1 + draws.below(3))
        return [item(draws) for _ in range(length if most is None else min(length, most))]

    return _set(make, item, least, name) if field_type.uniqueItems else make


def _set(make: Callable[[Draws], list[Any]], item: Make, least: int, name: str) -> Make:
    """Makes lists without equal items."""

    def different(draws: Draws) -> list[Any]:
        found = {canonical_json(one): one for one in make(draws)}
        for _ in range(TRIES * least):
            if len(found) >= least:
                break
            one = item(draws)
            found.setdefault(canonical_json(one), one)
        return list(found.values())

    if len(different(Draws("sure", name))) < least:
        reason = f"outputs.{name}: the mock cannot make a value: it found no {least} items that are all different"
        raise AdapterError(ErrorCode.PERMANENT, reason)
    return different


def _map(field_type: MapType, name: str) -> Make:
    value = maker(field_type.additionalProperties, name)

    def make(draws: Draws) -> dict[str, Any]:
        first = draws.below(len(KEYS))
        return {KEYS[(first + number) % len(KEYS)]: value(draws) for number in range(1 + draws.below(3))}

    return make


def _object(field_type: ObjectType) -> Make:
    required = frozenset(field_type.required)
    members = [(name, name in required, maker(member, name)) for name, member in field_type.properties.items()]

    def make(draws: Draws) -> dict[str, Any]:
        return {name: member(draws) for name, always, member in members if always or draws.below(2)}

    return make

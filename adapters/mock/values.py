"""Generates readable values that fit a field's type, enum and constraints.

A type is compiled to a function when the program is built; a run only calls it.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from adapters.mock.draws import Draws
from adapters.mock.texts import formed
from adapters.port import AdapterError
from dspex import ErrorCode
from dspex.ids import canonical_json
from dspex.signatures.definitions import least_size
from dspex.signatures.references import RefType
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

MAX_NESTED = 4
MAX_VALUES = 40
"""How deep values of types with names nest, and how many there are, before each that may end does so."""

MAX_OPTIONAL = 100_000
"""The least size of a value that need not be there, and is made."""

TRIES = 20
"""How often an item is made again for a set, for each that it must have."""

KEYS = ("amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "heath")


_OF_ANY: Mapping[type[Any], FieldType] = {
    AnyType: StringType(),
    AnyArrayType: ArrayType(items=StringType()),
    AnyMapType: MapType(additionalProperties=StringType()),
}
"""What is made where any value fits."""


class Output(NamedTuple):
    """An output that values are made for.

    Attributes:
        makers: those of the types that it names, which are compiled once.
    """

    name: str
    makers: dict[str, Make]


def maker(field_type: FieldType, name: str) -> Make:
    """Compile the type of an output to a function that makes values of it. Texts contain `name`.

    Raises:
        AdapterError: `permanent`: a text has a pattern that no text was found for.
    """
    return _maker(field_type, Output(name, {}))


def _maker(field_type: FieldType, output: Output) -> Make:
    field_type = _OF_ANY.get(type(field_type), field_type)
    name = output.name
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
            return _array(field_type, output)
        case MapType():
            return _map(field_type, output)
        case ObjectType():
            return _object(field_type, output)
        case RefType() | OptionalType() | UnionType() | TaggedUnionType() | TupleType():
            return _several(field_type, output)
    raise AssertionError(field_type)


def _named(ref: RefType, output: Output) -> Make:
    """Makes values of a type with a name: only so many, as they may multiply from name to name, or never end."""
    makers = output.makers
    if ref.name not in makers:
        makers[ref.name] = _unmade  # which the type itself may refer to
        makers[ref.name] = _nested(_maker(ref.target, output))
    return lambda draws: makers[ref.name](draws)


def _unmade(_draws: Draws) -> Any:
    raise AssertionError("a value was asked for while its type is compiled")


def _nested(made: Make) -> Make:
    def make(draws: Draws) -> Any:
        with draws.nested(MAX_NESTED, MAX_VALUES):
            return made(draws)

    return make


def _several(field_type: RefType | OptionalType | UnionType | TaggedUnionType | TupleType, output: Output) -> Make:
    match field_type:
        case RefType():
            return _named(field_type, output)
        case OptionalType(anyOf=(inner, _)):
            some = _maker(inner, output)
            may_be = _is_small(inner)
            return lambda draws: some(draws) if may_be and not draws.ending and draws.below(4) else None
        case UnionType(anyOf=choices) | TaggedUnionType(oneOf=choices):
            makers = [_null if isinstance(choice, NullType) else _maker(choice, output) for choice in choices]
            sizes = [least_size(choice) for choice in choices]
            least = makers[sizes.index(min(sizes))]
            small = [made for made, size in zip(makers, sizes, strict=True) if size <= MAX_OPTIONAL] or [least]
            return lambda draws: least(draws) if draws.ending else draws.choice(small)(draws)
        case TupleType(prefixItems=items):
            each = [_maker(item, output) for item in items]
            return lambda draws: [item(draws) for item in each]


def _is_small(field_type: FieldType) -> bool:
    """Whether a value that need not be there is made."""
    return least_size(field_type) <= MAX_OPTIONAL


def _null(_draws: Draws) -> None:
    return None


def _one_of(listed: tuple[Any, ...]) -> Make:
    return lambda draws: draws.choice(listed)


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


def _array(field_type: ArrayType, output: Output) -> Make:
    item = _maker(field_type.items, output)
    least, most = field_type.minItems or 0, field_type.maxItems
    may_be = _is_small(field_type.items)

    def make(draws: Draws) -> list[Any]:
        length = max(least, 1 + draws.below(3)) if may_be and not draws.ending else least
        return [item(draws) for _ in range(length if most is None else min(length, most))]

    return _set(make, item, least, output.name) if field_type.uniqueItems else make


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


def _map(field_type: MapType, output: Output) -> Make:
    value = _maker(field_type.additionalProperties, output)
    may_be = _is_small(field_type.additionalProperties)

    def make(draws: Draws) -> dict[str, Any]:
        if draws.ending or not may_be:
            return {}
        first = draws.below(len(KEYS))
        return {KEYS[(first + number) % len(KEYS)]: value(draws) for number in range(1 + draws.below(3))}

    return make


def _object(field_type: ObjectType, output: Output) -> Make:
    required = frozenset(field_type.required)
    members = [
        (name, name in required, _maker(member, output._replace(name=name)))
        for name, member in field_type.properties.items()
        if name in required or _is_small(member)
    ]

    def make(draws: Draws) -> dict[str, Any]:
        return {
            name: member(draws) for name, always, member in members if always or (not draws.ending and draws.below(2))
        }

    return make

"""Compares two versions of a signature, field by field: which changes break callers of the old version.

A caller sends inputs and reads outputs. The new version must accept its inputs: every value that fits the old inputs
must fit the new ones. The caller must be able to read the outputs: every value that fits the new outputs must fit the
old ones.

| the new version                                | of an input | of an output |
|------------------------------------------------|-------------|--------------|
| takes a field away                             | breaking    | breaking     |
| adds a field that must be given                | breaking    | compatible   |
| adds a field that may be left out              | compatible  | compatible   |
| lets more values fit (integer → number, a      | compatible  | breaking     |
| looser bound, a longer enum, null)             |             |              |
| lets fewer values fit (the other way round)    | breaking    | compatible   |
| lets others fit (string → integer)             | breaking    | breaking     |
| has another default                            | compatible  |              |

The same rules hold for properties of nested objects, items of lists and values of maps. Callers read outputs by name,
so a new one is compatible, nested or not. Whole numbers beyond the range of a double are ignored.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple
from uuid import UUID

from pydantic import TypeAdapter, ValidationError

from dspex.errors import BreakingChange
from dspex.ids import canonical_json
from dspex.model import Frozen
from dspex.signatures.annotations import annotation
from dspex.signatures.field import SignatureField
from dspex.signatures.measures import count_types, in_order, json_schema
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
from dspex.signatures.signature import Signature
from dspex.signatures.types import (
    AnyArrayType,
    AnyMapType,
    AnyType,
    ArrayType,
    FieldType,
    HistoryType,
    MapType,
    NullType,
    ObjectType,
    OptionalType,
    TaggedUnionType,
    TupleType,
    UnionType,
    takes_null,
)

MAX_NAMED = 10
"""How many breaking changes an error names."""

Direction = Literal["inputs", "outputs"]
Kind = Literal["added", "removed", "required", "optional", "default", "widened", "narrowed", "changed"]


class Change(Frozen):
    """One thing that a caller may notice.

    Attributes:
        field: the path: `k`, or a part of a field: `ticket.subject` (property), `tags[]` (items), `scores{}` (values of
            a map).
        direction: whether the field is one of the inputs or of the outputs.
        kind: `required`, `optional`: it must be given now, it may be absent or null now; `widened`, `narrowed`,
            `changed`: more, fewer, other values fit.
        compatible: whether callers of the old version still work.
        message: what happened to it, for a person.
    """

    field: str
    direction: Direction
    kind: Kind
    compatible: bool
    message: str

    def __str__(self) -> str:
        """One line, such as `input k: must be given now`."""
        return f"{self.direction.removesuffix('s')} {self.field}: {self.message}"


class Compatibility(Frozen):
    """The changes in a new version.

    Attributes:
        compatible: no change is breaking.
        changes: all changes, inputs first, in the order of the fields.
        notes: changes that only the LM sees: in instructions, descriptions, the order of fields, and types that are
            written differently for the same values.
    """

    compatible: bool
    changes: tuple[Change, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def breaking(self) -> tuple[Change, ...]:
        """The changes that break callers of the old version."""
        return tuple(change for change in self.changes if not change.compatible)


def compare(old: Signature, new: Signature) -> Compatibility:
    """The changes from `old` to `new`. The result is empty only if both have the same digest.

    Does not compare name, module and version, as callers do not depend on them.
    """
    changes: list[Change] = []
    notes: list[str] = []
    if old.instructions != new.instructions:
        notes.append("the instructions changed")
    pairs: tuple[tuple[Direction, tuple[SignatureField, ...], tuple[SignatureField, ...]], ...] = (
        ("inputs", old.inputs, new.inputs),
        ("outputs", old.outputs, new.outputs),
    )
    for direction, before, after in pairs:
        notes.extend(_notes(direction, before, after))
        for field, kind, message, harmless in _fields(direction, before, after):
            compatible = direction in harmless
            changes.append(Change(field=field, direction=direction, kind=kind, compatible=compatible, message=message))
    return Compatibility(
        compatible=all(change.compatible for change in changes), changes=tuple(changes), notes=tuple(notes)
    )


def check_compatible(compatibility: Compatibility, program_id: UUID) -> None:
    """Check that callers of a program's signature fit the new one.

    Raises:
        BreakingChange: they do not. It names the changes, up to `MAX_NAMED`.
    """
    breaking = [str(change) for change in compatibility.changes if not change.compatible]
    if breaking:
        more = f", and {len(breaking) - MAX_NAMED} more" if len(breaking) > MAX_NAMED else ""
        raise BreakingChange(
            f"signature: it breaks callers of program {program_id}: {'; '.join(breaking[:MAX_NAMED])}{more}: "
            "give allow_breaking, or create another program"
        )


class _Difference(NamedTuple):
    """A difference, and the directions in which it is compatible."""

    field: str
    kind: Kind
    message: str
    harmless: frozenset[Direction]


_NEVER: frozenset[Direction] = frozenset()
_AS_INPUT: frozenset[Direction] = frozenset({"inputs"})
_AS_OUTPUT: frozenset[Direction] = frozenset({"outputs"})
_ALWAYS = _AS_INPUT | _AS_OUTPUT


def _fields(
    direction: Direction, before: tuple[SignatureField, ...], after: tuple[SignatureField, ...]
) -> Iterator[_Difference]:
    old, new = {field.name: field for field in before}, {field.name: field for field in after}
    for name in [*old, *(name for name in new if name not in old)]:
        if name not in new:
            yield _removed(name)
        elif name not in old:
            yield _added(name, required=direction == "inputs" and new[name].required)
        else:
            yield from _types(old[name].type, new[name].type, name)
            if direction == "inputs":
                yield from _presence(old[name], new[name])


def _presence(old: SignatureField, new: SignatureField) -> Iterator[_Difference]:
    """Differences in whether an input may be absent, and in its default."""
    was, now = takes_null(old.type), takes_null(new.type)
    if old.required != new.required and was == now:  # otherwise the comparison of the types reports it
        yield _required(new.name, new.required)
    if not (old.required or new.required) and canonical_json(old.default) != canonical_json(new.default):
        yield _Difference(
            new.name, "default", "has another default: callers that leave it out get another value", _ALWAYS
        )


def _removed(path: str) -> _Difference:
    return _Difference(path, "removed", "is gone: inputs of this name are refused, outputs do not come", _NEVER)


def _added(path: str, *, required: bool) -> _Difference:
    if required:
        return _Difference(path, "added", "is new, and must be given", _AS_OUTPUT)
    return _Difference(path, "added", "is new", _ALWAYS)


def _required(path: str, required: bool) -> _Difference:
    if required:
        return _Difference(path, "required", "must be given now", _AS_OUTPUT)
    return _Difference(path, "optional", "may be left out now", _AS_INPUT)


def _types(old: FieldType, new: FieldType, path: str) -> Iterator[_Difference]:
    """Every difference between two types, including those of their members."""
    (before, was_nullable), (after, nullable) = _without_null(old), _without_null(new)
    if isinstance(before, AnyType) or isinstance(after, AnyType):
        was_nullable = nullable  # null is one of any values
    if nullable and not was_nullable:
        yield _Difference(path, "optional", "may be null now", _AS_INPUT)
    if was_nullable and not nullable:
        yield _Difference(path, "required", "may not be null any more", _AS_OUTPUT)
    before, after = _opened(before), _opened(after)
    match before, after:
        case (UnionType() | TaggedUnionType(), _) | (_, UnionType() | TaggedUnionType()):
            yield from _choices(before, after, path)
        case TupleType(), TupleType() if len(before.prefixItems) == len(after.prefixItems):
            for number, (was, now) in enumerate(zip(before.prefixItems, after.prefixItems, strict=True)):
                yield from _types(was, now, f"{path}[{number}]")
        case ArrayType(), ArrayType():
            yield from _sized(before, after, path)
            yield from _types(before.items, after.items, f"{path}[]")
        case MapType(), MapType():
            yield from _types(before.additionalProperties, after.additionalProperties, f"{path}{{}}")
        case ObjectType(), ObjectType():
            yield from _properties(before, after, path)
        case ObjectType(), MapType():
            wider = all(_fits(value, after.additionalProperties, "inputs") for value in before.properties.values())
            yield from _moved(before, after, path, wider=wider, narrower=False)
        case MapType(), ObjectType():
            narrower = all(_fits(before.additionalProperties, value, "outputs") for value in after.properties.values())
            yield from _moved(before, after, path, wider=False, narrower=narrower)
        case _:
            wider, narrower = _includes(after, before), _includes(before, after)
            yield from _moved(before, after, path, wider=wider, narrower=narrower)


def _opened(field_type: FieldType) -> FieldType:
    """A list or a map of any values, as one that says so."""
    match field_type:
        case AnyArrayType():
            return ArrayType(items=AnyType())
        case AnyMapType():
            return MapType(additionalProperties=AnyType())
        case _:
            return field_type


def _without_null(field_type: FieldType) -> tuple[FieldType, bool]:
    nullable = False
    while isinstance(field_type, OptionalType):
        field_type, nullable = field_type.anyOf[0], True
    return field_type, nullable or takes_null(field_type)


def _fits(old: FieldType, new: FieldType, direction: Direction) -> bool:
    return all(direction in difference.harmless for difference in _types(old, new, ""))


def _choices(old: FieldType, new: FieldType, path: str) -> Iterator[_Difference]:
    """The difference of two types, one of which is a union: whether each choice of one fits one of the other."""
    if count_types(old) * count_types(new) > MAX_PAIRS:
        same = canonical_json(json_schema(old)) == canonical_json(json_schema(new))
        yield from _moved(old, new, path, wider=same, narrower=same)
        return
    before, after = _choices_of(old), _choices_of(new)
    wider = all(any(_fits(one, other, "inputs") for other in after) for one in before)
    narrower = all(any(_fits(one, other, "outputs") for one in before) for other in after)
    yield from _moved(old, new, path, wider=wider, narrower=narrower)


def _choices_of(field_type: FieldType) -> tuple[FieldType, ...]:
    match field_type:
        case UnionType(anyOf=choices):
            return tuple(choice for choice in choices if not isinstance(choice, NullType))
        case TaggedUnionType(oneOf=objects):
            return objects
        case _:
            return (field_type,)


def _sized(old: ArrayType, new: ArrayType, path: str) -> Iterator[_Difference]:
    before, after = _range(old.minItems, old.maxItems), _range(new.minItems, new.maxItems)
    wider = _within(before, after) and not (new.uniqueItems and not old.uniqueItems)
    narrower = _within(after, before) and not (old.uniqueItems and not new.uniqueItems)
    yield from _moved(old, new, path, wider=wider, narrower=narrower)


def _properties(old: ObjectType, new: ObjectType, path: str) -> Iterator[_Difference]:
    for name in [*old.properties, *(name for name in new.properties if name not in old.properties)]:
        inner = f"{path}.{name}"
        if name not in new.properties:
            yield _removed(inner)
        elif name not in old.properties:
            yield _added(inner, required=name in new.required)
        else:
            yield from _types(old.properties[name], new.properties[name], inner)
            if (name in old.required) != (name in new.required):
                yield _required(inner, name in new.required)


def _moved(old: FieldType, new: FieldType, path: str, *, wider: bool, narrower: bool) -> Iterator[_Difference]:
    """The difference between two types, given whether each includes the other. None if both do."""
    was_now = f"was {_written(old)}, is {_written(new)}"
    enums = [_members(field_type) for field_type in (old, new)]
    if enums[0] is not None and enums[1] is not None:
        was_now = _gained_and_lost(enums[0], enums[1])
    if wider and narrower:
        return
    if wider:
        yield _Difference(path, "widened", f"more values fit: {was_now}", _AS_INPUT)
    elif narrower:
        yield _Difference(path, "narrowed", f"fewer values fit: {was_now}", _AS_OUTPUT)
    else:
        yield _Difference(path, "changed", f"other values fit: {was_now}", _NEVER)


# Which values fit


def _includes(wide: FieldType, narrow: FieldType) -> bool:
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
            return _within(_range(narrow.minLength, narrow.maxLength), _range(wide.minLength, wide.maxLength))
        case IntegerType(), IntegerType():
            # Here the range has more than one value, so the steps must agree.
            same_steps = (narrow.multipleOf or 1) % (wide.multipleOf or 1) == 0
            return same_steps and _within(_whole_numbers(narrow), _whole_numbers(wide))
        case NumberType(), IntegerType():
            low, high = _whole_numbers(narrow)
            return _within((_double(low), _double(high)), _numbers(wide))
        case NumberType(), NumberType():
            return _within(_numbers(narrow), _numbers(wide))
        case _:
            return False


def _accepts(validator: TypeAdapter[Any], value: Scalar) -> bool:
    try:
        validator.validate_python(value)
    except ValidationError:
        return False
    return True


def _members(field_type: FieldType) -> tuple[Scalar, ...] | None:
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


MAX_PAIRS = 100_000
"""Larger unions are only compared for being the same."""

_Range = tuple[float, float]
"""The lowest and the highest value, both inclusive. Integers stay integers, however large."""


def _range(low: float | None, high: float | None) -> _Range:
    return (-math.inf if low is None else low, math.inf if high is None else high)


def _within(inner: _Range, outer: _Range) -> bool:
    return outer[0] <= inner[0] and inner[1] <= outer[1]


def _whole_numbers(field_type: IntegerType) -> _Range:
    step = field_type.multipleOf or 1
    after, before = field_type.exclusiveMinimum, field_type.exclusiveMaximum
    lows = [field_type.minimum, None if after is None else after + 1]
    highs = [field_type.maximum, None if before is None else before - 1]
    return (
        max((-(-low // step) * step for low in lows if low is not None), default=-math.inf),
        min((high // step * step for high in highs if high is not None), default=math.inf),
    )


def _numbers(field_type: NumberType) -> _Range:
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


# In words


def _written(field_type: FieldType) -> str:
    """A type in a few words: its name and its own constraints."""
    match field_type:
        case ObjectType():
            return "object"
        case MapType():
            return "map"
        case AnyType():
            return "any value"
        case HistoryType():
            return "history"
        case UnionType() | TaggedUnionType():
            return " or ".join(dict.fromkeys(map(_written, _choices_of(field_type))))
        case TupleType():
            return f"list of {len(field_type.prefixItems)} types"
    keywords = json_schema(field_type)
    name = next((key for key in ("enum", "const") if key in keywords), keywords.get("type"))
    limits = [f"{key} {value}" for key, value in keywords.items() if key not in _NO_LIMITS]
    return f"{name} ({', '.join(limits)})" if limits else str(name)


_NO_LIMITS = frozenset({"type", "title", "description", "default", "examples", "enum", "const", "items"})
_MAX_NAMED = 5


def _gained_and_lost(old: tuple[Scalar, ...], new: tuple[Scalar, ...]) -> str:
    before, after = [[canonical_json(value).decode() for value in values] for values in (old, new)]
    parts = (
        ("added", [value for value in after if value not in before]),
        ("removed", [value for value in before if value not in after]),
    )
    return "; ".join(f"{verb} {_shortened(values)}" for verb, values in parts if values)


def _shortened(values: list[str]) -> str:
    shown = ", ".join(value if len(value) <= 40 else f"{value[:40]}…" for value in values[:_MAX_NAMED])
    return shown if len(values) <= _MAX_NAMED else f"{shown} and {len(values) - _MAX_NAMED} more"


# What only the LM sees


def _notes(
    direction: Direction, before: tuple[SignatureField, ...], after: tuple[SignatureField, ...]
) -> Iterator[str]:
    old, new = {field.name: field for field in before}, {field.name: field for field in after}
    if [name for name in old if name in new] != [name for name in new if name in old]:
        yield f"{direction}: the order changed"
    for name in old:
        if name in new:
            yield from _field_notes(f"{direction}.{name}", old[name], new[name], direction)


def _field_notes(path: str, old: SignatureField, new: SignatureField, direction: Direction) -> Iterator[str]:
    before, after = dict(_descriptions(old.type, path)), dict(_descriptions(new.type, path))
    before[path], after[path] = (old.description, *before[path]), (new.description, *after[path])
    described = [place for place in before if place in after and before[place] != after[place]]
    yield from (f"{place}: the description changed" for place in described)
    same = _told(old) == _told(new)
    if not same and not described and next(_fields(direction, (old,), (new,)), None) is None:
        yield f"{path}: is written differently, the same values fit"


def _told(field: SignatureField) -> bytes:
    data = field.model_dump(mode="json")
    return canonical_json(data | {"type": in_order(data["type"])})


def _descriptions(field_type: FieldType, path: str) -> Iterator[tuple[str, tuple[str | None, ...]]]:
    """The descriptions of a type and its members, by their paths."""
    here = [field_type.description]
    while isinstance(field_type, OptionalType):
        field_type = field_type.anyOf[0]
        here.append(field_type.description)
    # Ignores null: a description is the same if its type becomes optional.
    yield path, tuple(text for text in here if text is not None)
    match field_type:
        case ArrayType(items=inner):
            yield from _descriptions(inner, f"{path}[]")
        case MapType(additionalProperties=inner):
            yield from _descriptions(inner, f"{path}{{}}")
        case TupleType(prefixItems=inners):
            for number, inner in enumerate(inners):
                yield from _descriptions(inner, f"{path}[{number}]")
        case ObjectType(properties=properties):
            for name, inner in properties.items():
                yield from _descriptions(inner, f"{path}.{name}")

"""The differences of two types: what fits one of them and not the other, and in which direction that is harmless.

Types may contain themselves. So two that are compared already are taken for the same where they are met again inside:
if they differ, the comparison that has begun says so (Amadio and Cardelli 1993, doi:10.1145/155183.155231).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple

from dspex.ids import canonical_json
from dspex.signatures.definitions import refs_in
from dspex.signatures.inclusion import bounds, includes, members, within
from dspex.signatures.measures import count_types, json_schema
from dspex.signatures.references import RefType
from dspex.signatures.scalar_types import Scalar
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
    resolved,
    takes_null,
)

Direction = Literal["inputs", "outputs"]
Kind = Literal["added", "removed", "required", "optional", "default", "widened", "narrowed", "changed"]

MAX_PAIRS = 100_000
"""Larger unions are only compared for being the same."""


class Difference(NamedTuple):
    """A difference, and the directions in which it is compatible."""

    field: str
    kind: Kind
    message: str
    harmless: frozenset[Direction]


NEVER: frozenset[Direction] = frozenset()
AS_INPUT: frozenset[Direction] = frozenset({"inputs"})
AS_OUTPUT: frozenset[Direction] = frozenset({"outputs"})
ALWAYS = AS_INPUT | AS_OUTPUT


def removed(path: str) -> Difference:
    return Difference(path, "removed", "is gone: inputs of this name are refused, outputs do not come", NEVER)


def added(path: str, *, now: bool) -> Difference:
    if now:
        return Difference(path, "added", "is new, and must be given", AS_OUTPUT)
    return Difference(path, "added", "is new", ALWAYS)


def required(path: str, now: bool) -> Difference:
    if now:
        return Difference(path, "required", "must be given now", AS_OUTPUT)
    return Difference(path, "optional", "may be left out now", AS_INPUT)


class Comparison:
    """Compares the types of two fields, and tells every difference; or only whether there is one, in one direction."""

    def __init__(self, direction: Direction | None = None) -> None:
        self._direction = direction
        self._begun: dict[tuple[int, int], None] = {}
        self._failed: set[tuple[int, int]] = set()
        self._of: dict[Direction, Comparison] = {}

    def types(self, old: FieldType, new: FieldType, path: str) -> Iterator[Difference]:
        """Every difference between two types, including those of their members."""
        (before, was_nullable), (after, nullable) = _without_null(old), _without_null(new)
        if isinstance(before, AnyType) or isinstance(after, AnyType):
            was_nullable = nullable  # null is one of any values
        if nullable and not was_nullable:
            yield Difference(path, "optional", "may be null now", AS_INPUT)
        if was_nullable and not nullable:
            yield Difference(path, "required", "may not be null any more", AS_OUTPUT)
        if _refers(old) or _refers(new):
            yield from self._once(before, after, path)
        else:
            yield from self._bare(_opened(before), _opened(after), path)

    def _once(self, before: FieldType, after: FieldType, path: str) -> Iterator[Difference]:
        """The differences of two types, one of which has a name, unless they are compared already."""
        pair = (id(before), id(after))
        if pair in self._begun:
            return
        if self._direction is None:
            self._begun[pair] = None
            yield from self._bare(_opened(before), _opened(after), path)
            return
        known = len(self._begun)
        if pair not in self._failed:
            self._begun[pair] = None
            differences = self._bare(_opened(before), _opened(after), path)
            if all(self._direction in difference.harmless for difference in differences):
                return
            while len(self._begun) > known:  # what was found the same only as long as these two were
                self._begun.popitem()
            self._failed.add(pair)
        yield Difference(path, "changed", "", NEVER)

    def _bare(self, before: FieldType, after: FieldType, path: str) -> Iterator[Difference]:
        match before, after:
            case (UnionType() | TaggedUnionType(), _) | (_, UnionType() | TaggedUnionType()):
                yield from self._choices(before, after, path)
            case TupleType(), TupleType() if len(before.prefixItems) == len(after.prefixItems):
                for number, (was, now) in enumerate(zip(before.prefixItems, after.prefixItems, strict=True)):
                    yield from self.types(was, now, f"{path}[{number}]")
            case ArrayType(), ArrayType():
                yield from _sized(before, after, path)
                yield from self.types(before.items, after.items, f"{path}[]")
            case MapType(), MapType():
                yield from self.types(before.additionalProperties, after.additionalProperties, f"{path}{{}}")
            case ObjectType(), ObjectType():
                yield from self._properties(before, after, path)
            case ObjectType(), MapType():
                value = after.additionalProperties
                wider = all(self._fits(one, value, "inputs") for one in before.properties.values())
                yield from _moved(before, after, path, wider=wider, narrower=False)
            case MapType(), ObjectType():
                value = before.additionalProperties
                narrower = all(self._fits(value, one, "outputs") for one in after.properties.values())
                yield from _moved(before, after, path, wider=False, narrower=narrower)
            case _:
                wider, narrower = includes(after, before), includes(before, after)
                yield from _moved(before, after, path, wider=wider, narrower=narrower)

    def _fits(self, old: FieldType, new: FieldType, direction: Direction) -> bool:
        if self._direction not in (None, direction):
            return False  # nobody asks
        asked = self if self._direction else self._of.setdefault(direction, Comparison(direction))
        return all(direction in difference.harmless for difference in asked.types(old, new, ""))

    def _choices(self, old: FieldType, new: FieldType, path: str) -> Iterator[Difference]:
        """The difference of two types, one of which is a union: whether each choice of one fits one of the other."""
        if _size(old) * _size(new) > MAX_PAIRS:
            same = _content(old) == _content(new)
            yield from _moved(old, new, path, wider=same, narrower=same)
            return
        before, after = _choices_of(old), _choices_of(new)
        wider = all(any(self._fits(one, other, "inputs") for other in after) for one in before)
        narrower = all(any(self._fits(one, other, "outputs") for one in before) for other in after)
        yield from _moved(old, new, path, wider=wider, narrower=narrower)

    def _properties(self, old: ObjectType, new: ObjectType, path: str) -> Iterator[Difference]:
        for name in [*old.properties, *(name for name in new.properties if name not in old.properties)]:
            inner = f"{path}.{name}"
            if name not in new.properties:
                yield removed(inner)
            elif name not in old.properties:
                yield added(inner, now=name in new.required)
            else:
                yield from self.types(old.properties[name], new.properties[name], inner)
                if (name in old.required) != (name in new.required):
                    yield required(inner, name in new.required)


def _refers(field_type: FieldType) -> bool:
    while isinstance(field_type, OptionalType):
        field_type = field_type.anyOf[0]
    return isinstance(field_type, RefType)


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
    """The type itself, which a reference stands for and which may be null, and whether it may."""
    nullable, field_type = False, resolved(field_type)
    while isinstance(field_type, OptionalType):
        field_type, nullable = resolved(field_type.anyOf[0]), True
    return field_type, nullable or takes_null(field_type)


def _size(field_type: FieldType) -> int:
    """How many types it contains, with those that it may refer to."""
    first = next(refs_in(field_type), None)
    return count_types(field_type) + (0 if first is None else first.definitions.size)


def _content(field_type: FieldType) -> bytes:
    keys = {ref.name: ref.definitions.keys[ref.name] for ref in refs_in(field_type)}
    return canonical_json([json_schema(field_type), keys])


def _choices_of(field_type: FieldType) -> tuple[FieldType, ...]:
    match field_type:
        case UnionType(anyOf=choices):
            return tuple(choice for choice in choices if not isinstance(choice, NullType))
        case TaggedUnionType(oneOf=objects):
            return objects
        case _:
            return (field_type,)


def _sized(old: ArrayType, new: ArrayType, path: str) -> Iterator[Difference]:
    before, after = bounds(old.minItems, old.maxItems), bounds(new.minItems, new.maxItems)
    wider = within(before, after) and not (new.uniqueItems and not old.uniqueItems)
    narrower = within(after, before) and not (old.uniqueItems and not new.uniqueItems)
    yield from _moved(old, new, path, wider=wider, narrower=narrower)


def _moved(old: FieldType, new: FieldType, path: str, *, wider: bool, narrower: bool) -> Iterator[Difference]:
    """The difference between two types, given whether each includes the other. None if both do."""
    was_now = f"was {_written(old)}, is {_written(new)}"
    enums = [members(field_type) for field_type in (old, new)]
    if enums[0] is not None and enums[1] is not None:
        was_now = _gained_and_lost(enums[0], enums[1])
    if wider and narrower:
        return
    if wider:
        yield Difference(path, "widened", f"more values fit: {was_now}", AS_INPUT)
    elif narrower:
        yield Difference(path, "narrowed", f"fewer values fit: {was_now}", AS_OUTPUT)
    else:
        yield Difference(path, "changed", f"other values fit: {was_now}", NEVER)


# In words


def _written(field_type: FieldType) -> str:
    """A type in a few words: its name and its own constraints."""
    field_type = resolved(field_type)
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

"""The types that a field names in its `$defs`: which of them are used, and whether they have an end.

Each is looked at once, however often it is referred to.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from dspex.ids import digest
from dspex.signatures.measures import count_types, depth, in_order, members_of
from dspex.signatures.references import Definitions, RefType
from dspex.signatures.scalar_types import StringType, Type
from dspex.signatures.types import (
    MAX_DEPTH,
    ArrayType,
    FieldType,
    NullType,
    ObjectType,
    TaggedUnionType,
    TupleType,
    UnionType,
    check_told_apart,
)

MAX_LEVELS = 64
"""How deep the types of a field nest by way of references. Of types that contain each other, all count."""

MAX_VALUE_DEPTH = 100
"""How deep a value of a type that contains itself nests."""


def define(
    field_type: FieldType, types: Mapping[str, FieldType], data: Mapping[str, dict[str, Any]]
) -> dict[str, FieldType]:
    """Tell every reference of a field and of its definitions what it refers to. Returns the definitions that are used.

    Args:
        types: the definitions.
        data: the same, as JSON. It is changed.

    Raises:
        ValueError: a reference names nothing, types nest too deep, or a type has no values that end.
    """
    first = next(refs_in(field_type), None)
    if first is None:
        return {}
    if first.belongs_to(types):
        return dict(first.definitions.types)  # of a field that this one is made of
    used: dict[str, FieldType] = {}
    rest = [field_type]
    definitions = Definitions(used)
    while rest:
        for ref in refs_in(rest.pop()):
            ref.belong_to(definitions)
            if ref.name not in types:
                raise ValueError(f"{ref.ref} is not there: define it in $defs, or correct the name")
            if ref.name not in used:
                used[ref.name] = types[ref.name]
                rest.append(types[ref.name])
    groups = _groups(used)
    definitions.circular = frozenset(name for group in groups for name in group if _is_circular(group, used))
    definitions.size = sum(map(count_types, used.values()))
    _check_depth(field_type, used, groups)
    _check_circles(used)
    for group in groups:
        _measure(group, definitions)
        _name(group, definitions, data)
    for one in _all_in((field_type, *used.values())):
        if isinstance(one, TaggedUnionType):
            check_told_apart(one)
    definitions.types = {name: used[name] for name in types if name in used}
    return dict(definitions.types)


def refs_in(field_type: Type) -> Iterator[RefType]:
    """The references in a type, not in what they refer to."""
    return (one for one in _all_in((field_type,)) if isinstance(one, RefType))


def is_circular(field_type: Type) -> bool:
    """Whether a type that contains itself is in this one."""
    return any(ref.name in ref.definitions.circular for ref in refs_in(field_type))


def contains_itself(field_type: Type) -> bool:
    """Whether values of the type may be of any depth."""
    first = next(refs_in(field_type), None)
    return first is not None and bool(first.definitions.circular)


def least_size(field_type: FieldType | NullType) -> float:
    """The approximate size of the smallest value of this type, in characters and members."""
    match field_type:
        case RefType():
            return field_type.known("least size", least_size)
        case StringType():
            return 1 + (field_type.minLength or 0)
        case ArrayType():
            count = field_type.minItems or 0
            return 1 + (count * least_size(field_type.items) if count else 0)
        case TupleType(prefixItems=items):
            return 1 + sum(map(least_size, items))
        case UnionType(anyOf=choices) | TaggedUnionType(oneOf=choices):
            return min(1 if isinstance(choice, NullType) else least_size(choice) for choice in choices)
        case ObjectType():
            return 1 + sum(least_size(field_type.properties[name]) for name in field_type.required)
        case _:
            return 1


def _all_in(types: Iterable[Type]) -> Iterator[Type]:
    rest = list(types)[::-1]
    while rest:
        one = rest.pop()
        yield one
        rest += [inner for inner in members_of(vars(one)) if isinstance(inner, Type)][::-1]


def _groups(types: Mapping[str, FieldType]) -> list[list[str]]:
    """The names in groups of those that refer to each other: each after those that it refers to.

    Tarjan's algorithm (1972, doi:10.1137/0201010), without recursion.
    """
    index: dict[str, int] = {}
    lowest: dict[str, int] = {}
    open_: dict[str, None] = {}
    """In the order in which they were met."""
    groups: list[list[str]] = []
    for start in types:
        if start in index:
            continue
        index[start] = lowest[start] = len(index)
        open_[start] = None
        path = [(start, refs_in(types[start]))]
        while path:
            name, refs = path[-1]
            ref = next(refs, None)
            if ref is None:
                path.pop()
                if path:
                    lowest[path[-1][0]] = min(lowest[path[-1][0]], lowest[name])
                if lowest[name] == index[name]:
                    group = [open_.popitem()[0]]
                    while group[-1] != name:
                        group.append(open_.popitem()[0])
                    groups.append(group[::-1])
            elif ref.name not in index:
                index[ref.name] = lowest[ref.name] = len(index)
                open_[ref.name] = None
                path.append((ref.name, refs_in(types[ref.name])))
            elif ref.name in open_:
                lowest[name] = min(lowest[name], index[ref.name])
    return groups


def _is_circular(group: Sequence[str], types: Mapping[str, FieldType]) -> bool:
    return len(group) > 1 or any(ref.name == group[0] for ref in refs_in(types[group[0]]))


def _check_depth(field_type: FieldType, types: Mapping[str, FieldType], groups: Sequence[Sequence[str]]) -> None:
    levels: dict[str, int] = {}
    for group in groups:
        for name in group:
            if depth(types[name]) > MAX_DEPTH:
                raise ValueError(f"$defs.{name}: types nest deeper than {MAX_DEPTH}")
        own = sum(depth(types[name]) for name in group)
        below = max((levels.get(ref.name, 0) for name in group for ref in refs_in(types[name])), default=0)
        levels |= dict.fromkeys(group, own + below)
    deepest = depth(field_type) + max((levels[ref.name] for ref in refs_in(field_type)), default=0)
    if deepest > MAX_LEVELS:
        raise ValueError(
            f"types nest {deepest} deep by way of $ref, where all that contain each other count; at most {MAX_LEVELS} "
            "are allowed: use fewer types, or {} for any value"
        )


def _check_circles(types: Mapping[str, FieldType]) -> None:
    """Check that an object with properties is in each circle, as it ends what is found out about a type."""
    beside = {name: [ref.name for ref in _beside_objects(one)] for name, one in types.items()}
    rest = {name: len(names) for name, names in beside.items()}
    users: dict[str, list[str]] = {name: [] for name in types}
    for name, names in beside.items():
        for one in names:
            users[one].append(name)
    ends = [name for name, count in rest.items() if not count]
    while ends:
        name = ends.pop()
        del rest[name]
        for user in users[name]:
            rest[user] -= 1
            if not rest[user]:
                ends.append(user)
    if rest:
        name = next(name for name in types if name in rest)
        raise ValueError(
            f"$defs.{name} refers to itself without an object between: give it one with properties, or use {{}} for "
            "any value"
        )


def _beside_objects(field_type: FieldType) -> Iterator[RefType]:
    rest: list[object] = [field_type]
    while rest:
        one = rest.pop()
        if isinstance(one, RefType):
            yield one
        elif isinstance(one, Type) and not isinstance(one, ObjectType):
            rest += members_of(vars(one))


def _measure(group: Sequence[str], definitions: Definitions) -> None:
    """Find the least sizes: of a group, from below, until none becomes smaller."""
    known, types = definitions.known, definitions.types
    sizes: dict[str, float] = dict.fromkeys(group, math.inf)

    def smaller(name: str) -> bool:
        known["least size", name] = size = least_size(types[name])
        was, sizes[name] = sizes[name], size
        return size < was

    known |= {("least size", name): math.inf for name in group}
    while sum(map(smaller, group)):
        pass
    endless = [name for name in group if sizes[name] == math.inf]
    if endless:
        raise ValueError(
            f"$defs.{endless[0]} has no value that ends, as each contains another: let a property be left out or null, "
            "or use a list"
        )


def _name(group: Sequence[str], definitions: Definitions, data: Mapping[str, dict[str, Any]]) -> None:
    """Give each type of a group a key that is the same for the same types alone."""
    types, keys = definitions.types, definitions.keys
    inside = {name: in_order(data[name]) for name in sorted(group)}
    below = {ref.name: keys[ref.name] for name in group for ref in refs_in(types[name]) if ref.name in keys}
    whole = digest({"types": inside, "below": below})
    keys |= {name: f"{name} {whole}" for name in group}

"""The classes in a field of a DSPy class, each converted to data once, and which of them have names of their own in it.

Those that contain themselves have, as they cannot be written otherwise. All have where the field would be too large or
too deep without.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, NamedTuple

from dspex.signatures.measures import count_types, members_of

_Schema = dict[str, Any]

PREFIX = "#/$defs/"


class Extent(NamedTuple):
    """How many types there are, and how deep they nest."""

    types: int
    depth: int


class NamedClasses:
    """The classes that were met in a field, as data."""

    def __init__(self) -> None:
        self._names: dict[type, str] = {}
        self._types: dict[str, _Schema] = {}
        self._extents: dict[str, Extent] = {}

    def ref(self, kind: type, convert: Callable[[], _Schema]) -> _Schema:
        """A reference to a class, which is converted when it is met first."""
        if kind not in self._names:
            plain = re.sub(r"[^A-Za-z0-9._-]", "_", kind.__name__)[:150]
            taken = set(self._names.values())
            number = 1
            name = plain
            while name in taken:
                number += 1
                name = f"{plain}_{number}"
            self._names[kind] = name
            self._types[name] = convert()
        return {"$ref": PREFIX + self._names[kind]}

    def extent(self, schema: _Schema) -> Extent:
        """What a type is with all classes written where they stand, but those that contain themselves."""
        count, deepest = count_types(schema), 0
        for depth, ref in _refs(schema):
            inside = Extent(1, 1) if ref in self._circular else self._extent_of(ref)
            count += inside.types - 1
            deepest = max(deepest, depth - 1 + inside.depth)
        return Extent(count, max([deepest, *(depth for depth, _ in _levels(schema))]))

    def _extent_of(self, name: str) -> Extent:
        if name not in self._extents:
            self._extents[name] = self.extent(self._types[name])
        return self._extents[name]

    def written(self, schema: _Schema, *, all_named: bool) -> tuple[_Schema, dict[str, _Schema]]:
        """A type, and the definitions that it needs."""
        kept = set(self._types) if all_named else self._circular
        return self._inlined(schema, kept), {name: self._inlined(self._types[name], kept) for name in sorted(kept)}

    @cached_property
    def _circular(self) -> set[str]:
        """The names of the classes that contain themselves."""
        direct = {name: {ref for _, ref in _refs(one)} for name, one in self._types.items()}
        return {name for name in direct if name in _reached(direct, name)}

    def _inlined(self, schema: _Schema, kept: set[str]) -> _Schema:
        name = _name_in(schema)
        if name is not None and name not in kept:
            return _beside(self._inlined(self._types[name], kept), schema)
        new = dict(schema)
        for key in ("items", "additionalProperties"):
            if isinstance(new.get(key), dict):
                new[key] = self._inlined(new[key], kept)
        if "properties" in new:
            new["properties"] = {key: self._inlined(one, kept) for key, one in new["properties"].items()}
        for key in ("anyOf", "oneOf", "prefixItems"):
            if key in new:
                new[key] = [self._inlined(one, kept) for one in new[key]]
        return new


def _beside(schema: _Schema, ref: Mapping[str, Any]) -> _Schema:
    """A class with what is said of its place. What describes the class itself is its docstring."""
    placed = {key: value for key, value in ref.items() if key not in ("$ref", "title")}
    if "title" in schema and "description" in placed:
        placed["docstring"] = schema.get("description", "")
    return schema | placed


def _name_in(schema: Mapping[str, Any]) -> str | None:
    ref = schema.get("$ref")
    return None if ref is None else str(ref).removeprefix(PREFIX)


def _levels(schema: _Schema) -> list[tuple[int, _Schema]]:
    """The types in a type, and how deep each stands."""
    found, rest = [], [(1, schema)]
    while rest:
        depth, one = rest.pop()
        found.append((depth, one))
        rest += [(depth + 1, inner) for inner in members_of(one) if isinstance(inner, dict)]
    return found


def _refs(schema: _Schema) -> list[tuple[int, str]]:
    return [(depth, name) for depth, one in _levels(schema) if (name := _name_in(one)) is not None]


def _reached(direct: Mapping[str, set[str]], start: str) -> set[str]:
    found: set[str] = set()
    rest = [start]
    while rest:
        new = direct.get(rest.pop(), set()) - found
        found |= new
        rest += new
    return found

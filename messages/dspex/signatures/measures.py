"""What a type is as JSON Schema, how deep it nests, and how many types and values it has."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from dspex.signatures.formats import ATOM_TYPES, atoms
from dspex.signatures.scalar_types import Type
from dspex.signatures.types import is_null


def json_schema(field_type: Type, names: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The type as JSON Schema 2020-12: its own members, without those that are not set.

    Args:
        names: other names of the definitions that it refers to.
    """
    return _standard(field_type.model_dump(mode="json"), names or {})


def _standard(schema: dict[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """The schema in the words of the standard, with all that is checked. What is passed in is changed."""
    if "$ref" in schema:
        start, _, name = schema["$ref"].rpartition("/")
        schema["$ref"] = f"{start}/{names.get(name, name)}"
    for ours in ("docstring", "attribute", "names"):
        schema.pop(ours, None)
    if "properties" in schema:
        schema["additionalProperties"] = False
    for member in members_of(schema):
        if isinstance(member, dict):
            _standard(member, names)
    return schema


def in_order(schema: dict[str, Any]) -> dict[str, Any]:
    """A type, as data, in which the order of properties counts where the LM sees it. What is passed in is changed.

    It is only seen in objects with a title, in some formats of prompts: what has none is as it was.
    """
    for member in members_of(schema):
        if isinstance(member, dict):
            in_order(member)
    if schema.get("title") is not None and isinstance(schema.get("properties"), dict):
        schema["properties"] = list(schema["properties"].items())
    return schema


def depth(field_type: Type) -> int:
    """How deep the type nests; a scalar is 1."""
    return 1 + max((depth(inner) for inner in members_of(vars(field_type)) if isinstance(inner, Type)), default=0)


def count_types(field_type: object) -> int:
    """How many types a type contains, including itself, its members, the values of enums and what patterns cost.

    Args:
        field_type: a type, or unvalidated data for one.
    """
    count, rest = 0, [field_type]
    while rest:
        one = rest.pop()
        count += 1
        if isinstance(one, Type):
            one = vars(one)
        if isinstance(one, Mapping):
            count += _length(one.get("enum")) + _count_given(one)
            if isinstance(pattern := one.get("pattern"), str):
                count += ATOM_TYPES * atoms(pattern)
            rest.extend(members_of(one))
    return count


def _count_given(one: Mapping[str, Any]) -> int:
    return sum(count_values(one[key]) for key in ("default", "examples") if one.get(key))


def count_values(value: object) -> int:
    """How many values a JSON value contains, including itself."""
    count, rest = 0, [value]
    while rest:
        match rest.pop():
            case dict() as one:
                rest.extend(one.values())
            case list() | tuple() as many:
                rest.extend(many)
        count += 1
    return count


def nests_deeper(value: object, limit: int) -> bool:
    """Whether a JSON value nests deeper than this; a scalar is 0."""
    rest = [(value, 0)]
    while rest:
        one, level = rest.pop()
        inner = one.values() if isinstance(one, dict) else one if isinstance(one, list | tuple) else None
        if inner is not None:
            if level == limit:
                return True
            rest += [(item, level + 1) for item in inner]
    return False


def members_of(of: Mapping[str, Any]) -> Iterator[object]:
    """The types in a type, except null, from its members or from unvalidated data for them."""
    for key in ("items", "additionalProperties"):
        if isinstance(of.get(key), Mapping | Type):
            yield of[key]
    if isinstance(properties := of.get("properties"), Mapping):
        yield from properties.values()
    for key in ("anyOf", "oneOf", "prefixItems"):
        if isinstance(several := of.get(key), list | tuple):
            yield from (one for one in several if not is_null(one))


def _length(values: object) -> int:
    return len(values) if isinstance(values, list | tuple) else 0

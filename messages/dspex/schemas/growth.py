"""v1 only grows: compares the old and the new JSON Schema of a message, and finds breaking changes.

Old services send commands and queries, and new workers read them. New workers send events and answers, and old services
read them. In both cases every value that may be sent must fit the reader's schema, and no field may be removed. So a
command may gain optional fields, accept more values and require less; an event may gain fields and promise more.
Renaming a field is the same as removing it.

An alternative with `"x-later": true`, such as a new type of a field, is sent to those alone who look at what a newer
service has made. Choices of such types are open: a reader may meet one that it does not know.

`dspex.signatures.compatibility` does the same for the fields of signatures, which have fewer kinds of types.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

Schema = Mapping[str, Any]


class Break(NamedTuple):
    """A breaking change: where it is (`data.options.seed`, `items[]`), and why it breaks."""

    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message


def breaks(old: Schema, new: Schema, *, asked: bool) -> list[Break]:
    """The breaking changes from `old` to `new`.

    Args:
        asked: True for messages to DSPex, False for messages from it.
    """
    comparison = _Comparison(old, new, asked) if asked else _Comparison(new, old, asked)
    return list(comparison.of(comparison.sender, comparison.reader, ""))


class _Comparison:
    """Compares the sender's schema with the reader's. Each looks up definitions in its own document."""

    def __init__(self, sender: Schema, reader: Schema, asked: bool) -> None:
        self.sender = sender
        self.reader = reader
        self._asked = asked
        self._begun: set[tuple[int, int]] = set()

    def of(self, sent: Schema, read: Schema, path: str) -> Iterator[Break]:
        """Why a value that fits `sent` may not fit `read`."""
        choices = list(_alternatives(read, self.reader))
        sends = list(_alternatives(sent, self.sender))
        for one in sends:
            if one.get("x-later") and not self._asked and len(sends) > 1:
                continue
            yield from self._of_one(one, choices, path)

    def _of_one(self, sent: Schema, choices: list[Schema], path: str) -> Iterator[Break]:
        tried = []
        for choice in choices:
            begun = set(self._begun)
            found = list(self._of_pair(sent, choice, path))
            if not found:
                return
            self._begun = begun  # drops pairs that were found compatible only within a wrong choice
            tried.append((_kind(sent) != _kind(choice), len(found), found))
        other_kind, _, found = min(tried, key=lambda entry: entry[:2])
        if other_kind and len(choices) > 1:
            found = [Break(path, f"may be {_kind(sent)}, which is not read")]
        yield from found

    def _of_pair(self, sent: Schema, read: Schema, path: str) -> Iterator[Break]:
        pair = (id(sent), id(read))
        if pair in self._begun:  # a recursive type: the comparison that has begun covers it
            return
        self._begun.add(pair)
        problem = _values(sent, read) or _limits(sent, read)
        if problem:
            yield Break(path, problem)
            return
        if "items" in read or "prefixItems" in read:
            yield from self._items(sent, read, path)
        if sent.get("type") == read.get("type") == "object":
            yield from self._fields(sent, read, path)
            yield from self._others(sent, read, path)

    def _items(self, sent: Schema, read: Schema, path: str) -> Iterator[Break]:
        if len(sent.get("prefixItems", ())) != len(read.get("prefixItems", ())):
            yield Break(path, "has another number of items")
            return
        for number, (one, other) in enumerate(
            zip(sent.get("prefixItems", ()), read.get("prefixItems", ()), strict=True)
        ):
            yield from self.of(one, other, f"{path}[{number}]")
        if "items" in read:
            yield from self.of(sent.get("items", {}), read["items"], f"{path}[]")

    def _fields(self, sent: Schema, read: Schema, path: str) -> Iterator[Break]:
        sends, reads = sent.get("properties", {}), read.get("properties", {})
        old, new = (sends, reads) if self._asked else (reads, sends)
        for name in old:
            inner = _joined(path, name)
            if name not in new:
                yield Break(inner, "is gone")
                continue
            yield from self.of(sends[name], reads[name], inner)
            if self._asked and not _same_default(old[name], new[name]):
                yield Break(inner, "has another default: callers that leave it out get another value")
        for name in read.get("required", ()):
            if name not in old:
                yield Break(_joined(path, name), "is new, and must be given")
            elif name in new and name not in sent.get("required", ()):
                yield Break(_joined(path, name), "must be given now" if self._asked else "may be missing now")

    def _others(self, sent: Schema, read: Schema, path: str) -> Iterator[Break]:
        """Compare fields that one side does not name with the values of the other side's map."""
        sends, reads = sent.get("properties", {}), read.get("properties", {})
        other, taken = _other_fields(sent), _other_fields(read)
        if taken is False:
            if other is not False:
                yield Break(path, "takes no other fields any more")
        else:
            if other is not False:
                yield from self.of(other, taken, f"{path}{{}}")
            for name in sends.keys() - reads.keys():
                yield from self.of(sends[name], taken, _joined(path, name))
        if other is not False and self._asked:
            for name in reads.keys() - sends.keys():
                yield from self.of(other, reads[name], _joined(path, name))


def _joined(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _alternatives(schema: Schema, document: Schema) -> Iterator[Schema]:
    """The schemas of which a value must fit one."""
    if "$ref" in schema:
        definition = document["$defs"][schema["$ref"].removeprefix("#/$defs/")]
        yield from _alternatives(definition, document)
    elif "anyOf" in schema or "discriminator" in schema:  # of alternatives that a property tells apart, only one fits
        for choice in schema.get("anyOf") or schema["oneOf"]:
            yield from _alternatives(choice, document)
    else:
        yield schema


def _kind(schema: Schema) -> str:
    if "const" in schema:
        return repr(schema["const"])
    if "type" not in schema:
        return "one of a list" if "enum" in schema else "anything"
    return f"{schema['type']} {_constant(schema)}".rstrip()


def _constant(schema: Schema) -> str:
    """The constant that says which kind of object it is."""
    return str(schema.get("properties", {}).get("type", {}).get("const", ""))


def _listed(schema: Schema) -> list[Any] | None:
    if "const" in schema:
        return [schema["const"]]
    found: list[Any] | None = schema.get("enum")
    return found


_TYPES: Mapping[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
    "array": (list,),
    "object": (dict,),
}


def _values(sent: Schema, read: Schema) -> str | None:
    """What is wrong with the type or the listed values of `sent`; None if nothing."""
    listed, allowed = _listed(sent), _listed(read)
    if listed is None and sent.get("type") == "boolean":
        listed = [False, True]
    if allowed is not None:
        if listed is None:
            return (
                "takes only listed values now" if "type" in sent else "may be anything, and only listed values are read"
            )
        unread = [value for value in listed if not any(type(value) is type(one) and value == one for one in allowed)]
        return f"may be {', '.join(map(repr, unread))}, which is not read" if unread else None
    kind = read.get("type")
    if kind is None:
        return None
    constants = _constant(sent), _constant(read)
    if all(constants) and constants[0] != constants[1]:
        return f"may be {_kind(sent)}, and {_kind(read)} is read"
    if listed is not None:
        fits = all(type(value) in _TYPES[kind] for value in listed)
    else:
        fits = sent.get("type") == kind or (sent.get("type"), kind) == ("integer", "number")
    return None if fits else f"may be {_kind(sent)}, and {kind} is read"


_LOWER = ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties")
_UPPER = ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties")
_COMPARED = frozenset(
    {
        "type",
        "const",
        "enum",
        "x-extensible-enum",
        "x-later",
        "properties",
        "patternProperties",
        "required",
        "items",
        "$defs",
    }
    | {"additionalProperties", "prefixItems", "$schema", "title", "description", "default", "examples"}
)


def _limits(sent: Schema, read: Schema) -> str | None:
    """What is wrong with the limits of `sent`, or None. Keywords that are not numbers (`pattern`) must be equal."""
    if _listed(sent) is not None and "type" not in read:
        return None
    for key in _LOWER:
        if key in read and not (key in sent and sent[key] >= read[key]):
            return f"{key} is {read[key]} for the reader, and {sent.get(key, 'not set')} for the sender"
    for key in _UPPER:
        if key in read and not (key in sent and sent[key] <= read[key]):
            return f"{key} is {read[key]} for the reader, and {sent.get(key, 'not set')} for the sender"
    for key in read.keys() - _COMPARED - {*_LOWER, *_UPPER}:
        if key == "propertyNames" and _other_fields(sent) is False:
            continue  # the reader names all of the sender's fields
        if sent.get(key) != read[key]:
            return f"{key} is {read[key]!r} for the reader, and {sent.get(key, 'not set')!r} for the sender"
    return None


def _other_fields(schema: Schema) -> Any:
    """The schema of a map's values; False if no other fields are allowed."""
    for by_pattern in schema.get("patternProperties", {}).values():
        return by_pattern
    other = schema.get("additionalProperties", {})
    return {} if other is True else other


def _same_default(old: Schema, new: Schema) -> bool:
    """Whether leaving a field out still means the same. Fields added since, and null members, are ignored."""
    if "default" not in old:
        return True
    was, now = old["default"], new.get("default")
    if isinstance(was, dict) and isinstance(now, dict):
        return all(value is None or now.get(key) == value for key, value in was.items())
    return bool(type(was) is type(now) and was == now)

"""A JSON Schema as others write it, such as `model_json_schema()` of pydantic: as a type of ours, and what is lost.

A type of ours says less than JSON Schema can. What it says is taken; what is lost is named by the path of its place
and its word, so that whoever gave it can decide. Three kinds of words:

- those that say the same in other words are rewritten (`allOf` of one, a list of types, `nullable`);
- those that restrict values are lost where a type cannot say them: more values are valid then, never others;
- those without which values would be other ones are refused: properties that only `then` names, a text that is an
  image.

Data in our own form stays as it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NoReturn

from dspex.errors import InvalidSignature, Problem
from dspex.signatures.measures import nests_deeper
from dspex.signatures.merged_schemas import TEXTS, Contradiction, merged
from dspex.signatures.schema_reader import KEPT, listed, of_type
from dspex.signatures.schema_words import (
    ABOUT,
    Schema,
    are_apart,
    both_types,
    is_null,
    is_ref,
    one_or_several,
    or_null,
    types_in,
)

MAX_SCHEMAS = 10_000
"""How many schemas are read for a signature, with those that `allOf` repeats."""

MAX_LEVELS = 64
"""How deep they nest."""

MAX_LOSSES = 200
"""The most losses that are named one by one, for a signature."""

_SILENT = ("$comment", "$schema")
_NOT_SHOWN = ("deprecated", "readOnly", "writeOnly", "example", "externalDocs", "xml", "contentSchema", "$anchor")


def as_it_comes(signature: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[Problem, ...]]:
    """A signature as data whose types may be any JSON Schema: in our own form, and what is lost.

    What is no data for a signature is left as it is, for `Signature.parse` to refuse.

    Raises:
        InvalidSignature: a type would mean something else in our form. It names every field.
    """
    data, lost, wrong = dict(signature), list[Problem](), list[Problem]()
    count = 0
    for side in ("inputs", "outputs"):
        if not isinstance(given := data.get(side), list | tuple):
            continue
        fields = []
        for field in given:
            reader = _Reader(count)
            try:
                fields.append(reader.field(field))
            except _Refused as error:
                wrong.append(error.problem)
            except (TypeError, ValueError, AttributeError, LookupError):  # a word has a value that it cannot have
                wrong.append(Problem(str(field.get("name", ""))[:64], "its type is no JSON Schema: correct it"))
            lost += dict.fromkeys(reader.lost)
            count = reader.count
        data[side] = fields
    if wrong:
        raise InvalidSignature(wrong)
    if len(lost) > MAX_LOSSES:
        lost = [*lost[:MAX_LOSSES], Problem("", f"and {len(lost) - MAX_LOSSES} more words are lost")]
    return data, tuple(lost)


class _Refused(Exception):
    """A schema that would mean something else in our form."""

    def __init__(self, path: str, message: str) -> None:
        super().__init__(message)
        self.problem = Problem(path[:500], message)


class _Reader:
    """Reads the schemas of one field.

    Attributes:
        lost: what is lost of them.
        count: how many were read, with those before.
    """

    def __init__(self, count: int) -> None:
        self.lost: list[Problem] = []
        self.count = count
        self._definitions: Mapping[str, Any] = {}
        self._used: dict[str, None] = {}

    def field(self, field: Any) -> Any:
        """A field, as data, in our own form. Of `$defs`, those stay that are used."""
        given = field.get("type") if isinstance(field, Mapping) else None
        if not isinstance(given, Mapping):
            return field
        name = str(field.get("name", ""))[:64]
        given, data = dict(given), dict(field)
        given.pop("$id", None)
        for word in ("$defs", "definitions"):
            if word in given and not data.get("$defs"):
                data["$defs"] = given.pop(word)
        if any(nests_deeper(one, 4 * MAX_LEVELS) for one in (given, data.get("$defs"))):
            raise _Refused(name, f"schemas nest deeper than {MAX_LEVELS}")
        definitions = data.get("$defs")
        self._definitions = definitions if isinstance(definitions, Mapping) else {}
        data["type"] = self.read(given, name)
        if isinstance(definitions, Mapping):
            kept: dict[str, Any] = {}
            while rest := [one for one in self._used if one not in kept and one in definitions]:
                kept |= {one: self.read(definitions[one], f"{name}.$defs.{one}") for one in rest}
            data["$defs"] = {one: kept[one] for one in definitions if one in kept}
        return data

    def read(self, schema: Any, path: str, level: int = 0) -> Any:
        """A type of ours."""
        found = self._read(schema, path, level)
        if not is_null(found):
            return found
        self.lose(path, "null", "alone is no type of ours: any value is taken")
        return {word: value for word, value in schema.items() if word in ABOUT}

    def _read(self, schema: Any, path: str, level: int) -> Any:
        """A type of ours, or null."""
        self._check(path, level)
        if isinstance(schema, bool):
            return {} if schema else self._nothing_fits(path)
        if schema is None or isinstance(schema, list | tuple | str | int | float):
            self.refuse(path, "needs a schema: an object of JSON, or true")
        if not isinstance(schema, Mapping):
            return schema  # a type of ours, from Python
        found = {
            word: value
            for word, value in schema.items()
            if word not in _SILENT and (value is not None or word in ("const", "default"))  # else, null is absent
        }
        if "allOf" in found:
            found = self._all(found, path, level)
        if found.get("nullable") is True:
            del found["nullable"]
            return or_null(self._read(found, path, level + 1))
        found.pop("nullable", None)
        if found.get("not") in ({}, True):
            self._nothing_fits(path)
        if "$ref" in found:
            return self._ref(found, path)
        if "const" in found or "enum" in found:
            return listed(found, path, self)
        several = types_in(found)
        if len(several) > 1:
            return self._of_types(found, several, path, level)
        if several and isinstance(found["type"], list | tuple):
            found["type"] = several[0]
        if ("anyOf" in found or "oneOf" in found) and not found.keys() & {"properties", "items", "prefixItems"}:
            return self._choice(found, path, level)
        return of_type(found, path, level, self)

    def kept(self, found: Schema, words: Iterable[str], path: str) -> Schema:
        """What a type of ours has. All else is lost."""
        kept = set(words)
        for word in found:
            if word not in kept:
                self.lose(path, word)
        return {word: value for word, value in found.items() if word in kept}

    def lose(self, path: str, word: str, why: str | None = None) -> None:
        if why is None:
            known = not (word in _NOT_SHOWN or word.startswith("x-"))
            why = "is not checked" if known else "is not kept"
        self.lost.append(Problem(path[:500], f"{word[:100]} {why}"))

    def _check(self, path: str, level: int) -> None:
        self.count += 1
        if self.count > MAX_SCHEMAS:
            raise _Refused(path, f"its schema says more than {MAX_SCHEMAS} schemas, with those that allOf repeats")
        if level > MAX_LEVELS:
            raise _Refused(path, f"schemas nest deeper than {MAX_LEVELS}")

    def refuse(self, path: str, why: str) -> NoReturn:
        """Refuse the schema of a place."""
        raise _Refused(path, why)

    def _nothing_fits(self, path: str) -> NoReturn:
        self.refuse(path, "no value fits its schema")

    # References, and schemas that hold together

    def _ref(self, found: Schema, path: str) -> Schema:
        found = {word: value for word, value in found.items() if word not in _SILENT}
        found["$ref"] = _here(found["$ref"])
        self._used[str(found["$ref"]).rpartition("/")[2]] = None
        target = self._target(found["$ref"])
        if "type" in found and types_in(found) == types_in(target):
            del found["type"]
        return self.kept(found, ("$ref", *ABOUT), path)

    def _target(self, pointer: object) -> Mapping[str, Any]:
        target = self._definitions.get(str(pointer).rpartition("/")[2])
        return target if isinstance(target, Mapping) else {}

    def _resolved(self, schema: Any) -> Any:
        for _ in range(MAX_LEVELS):
            if not is_ref(schema):
                break
            schema = self._target(schema["$ref"])
        return schema

    def _all(self, found: Schema, path: str, level: int, inside: tuple[str, ...] = ()) -> Schema:
        """A schema without `allOf`."""
        self._check(path, level)
        parts = found.pop("allOf")
        if not isinstance(parts, list | tuple) or not parts:
            raise _Refused(path, "allOf needs a list of schemas")
        if len(parts) == 1 and is_ref(parts[0]) and not found.keys() - {*ABOUT, "nullable"}:
            return {**parts[0], **found}
        if "$ref" in found:
            parts = [{"$ref": found.pop("$ref")}, *parts]
        for part in parts:
            given = self._inlined(part, path, level, inside)
            self.count += len(given.get("properties") or ())  # they are copied
            try:
                found = merged(found, given, path, self.lose)
            except Contradiction:
                self._nothing_fits(path)
        return found

    def _inlined(self, part: Any, path: str, level: int, inside: tuple[str, ...]) -> Schema:
        """A part of `allOf`, with what it refers to."""
        if part is True:
            return {}
        if not isinstance(part, Mapping):
            self._nothing_fits(path)
        new = {word: value for word, value in part.items() if word not in _SILENT}
        if "$ref" in new:
            name = str(_here(new["$ref"])).rpartition("/")[2]
            if name in inside:
                raise _Refused(path, f"allOf refers to {name}, which refers to itself by its own allOf")
            if not self._target(new["$ref"]):
                raise _Refused(path, f"{new['$ref']} is not there: define it in $defs, or correct the name")
            inside = (*inside, name)
            rest = {word: value for word, value in new.items() if word != "$ref"}
            target = self._inlined(self._target(new["$ref"]), path, level + 1, inside)
            new = {**target, **rest} if not rest.keys() - set(TEXTS) else {"allOf": [rest, target]}
        return self._all(new, path, level + 1, inside) if "allOf" in new else new

    # Several types

    def _of_types(self, found: Schema, several: list[Any], path: str, level: int) -> Any:
        """Of `"type": [...]`: each type with the words that are about it."""
        if not all(isinstance(name, str) for name in several):
            self.refuse(path, "type needs the name of a type, or a list of names")
        around, inner = _split(found)
        about = {word for words in KEPT.values() for word in words}
        others = {word: value for word, value in inner.items() if word not in about and word != "type"}
        choices = [
            {word: value for word, value in inner.items() if word in KEPT.get(str(name), ())} | {"type": name}
            for name in dict.fromkeys(several)
        ]
        return self._choice({**around, **others, "anyOf": choices}, path, level)

    def _choice(self, found: Schema, path: str, level: int) -> Any:
        """Of `anyOf` or `oneOf`, as our unions are."""
        if "anyOf" in found and "oneOf" in found:
            self.lose(path, "oneOf")
            del found["oneOf"]
        word = "anyOf" if "anyOf" in found else "oneOf"
        given = found.pop(word)
        if not isinstance(given, list | tuple) or not given:
            return {**found, word: given}
        limit = types_in(found)
        found.pop("type", None)
        choices = [one for each in given if (one := self._within(each, limit)) is not None]
        if not choices:
            self._nothing_fits(path)
        several = sum(is_null(each) is False for each in choices) > 1
        types = [
            self._read(each, f"{path}<{number}>" if several else path, level + 1)
            for number, each in enumerate(choices, 1)
        ]
        types = [one for number, one in enumerate(types) if not (is_null(one) and any(map(is_null, types[:number])))]
        some = [one for one in types if not is_null(one)]
        by = found.pop("discriminator", None)
        around = self.kept(found, ABOUT, path)
        if len(types) == 1:
            return {**types[0], **around} if isinstance(types[0], Mapping) else types[0]
        if by is not None and word == "oneOf" and self._told_apart(some, by):
            union = {"oneOf": some, "discriminator": {"propertyName": by["propertyName"]}}
            return {**around, **union} if some == types else {**around, "anyOf": [union, {"type": "null"}]}
        if by is not None:
            self.lose(path, "discriminator", "is not used: not each of the types requires it, as a text of its own")
        if word == "oneOf" and not are_apart(types):
            self.lose(path, "oneOf", "is read as anyOf: a value may fit several of them")
        return {**around, "anyOf": types}

    def _within(self, choice: Any, limit: list[Any]) -> Any:
        """One of several schemas beside which a type is given, or None: it is of another type."""
        if not limit or not isinstance(choice, Mapping) or "$ref" in choice:
            return choice
        if "type" not in choice:
            own = {"enum", "const", "anyOf", "oneOf", "allOf"} & choice.keys()
            return choice if own else {**choice, "type": one_or_several(limit)}
        found = both_types(types_in(choice), limit)
        return {**choice, "type": one_or_several(found)} if found else None

    def _told_apart(self, choices: Iterable[Any], by: Any) -> bool:
        """Whether each of some objects requires the property, as a text that no other one has."""
        name = by.get("propertyName") if isinstance(by, Mapping) else None
        known: set[Any] = set()
        for each in choices:
            one = self._resolved(each)
            properties = one.get("properties") if isinstance(one, Mapping) else None
            tag = properties.get(str(name)) if isinstance(properties, Mapping) else None
            tag = self._resolved(tag)
            values = (tag.get("enum") or [tag.get("const")]) if isinstance(tag, Mapping) else [None]
            if name not in (one.get("required") or ()) or not all(isinstance(value, str) for value in values):
                return False
            if not known.isdisjoint(values):
                return False
            known |= set(values)
        return True


def _split(found: Mapping[str, Any]) -> tuple[Schema, Schema]:
    """What is said of a place, and what is said of its type."""
    around = {word: value for word, value in found.items() if word in ABOUT}
    return around, {word: value for word, value in found.items() if word not in around}


def _here(pointer: Any) -> Any:
    """A reference to a type of the field, as it is written since 2019."""
    old = "#/definitions/"
    return f"#/$defs/{pointer[len(old) :]}" if isinstance(pointer, str) and pointer.startswith(old) else pointer

"""Whole messages that are nearly right: what the committed schemas take the decoder takes, and the other way round.

Where they differ on purpose it is written out here: what a schema has no words for, and what is taken beside it.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

from hypothesis import example, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator, FormatChecker

from dspex import decode_command, wrap
from dspex.errors import DspexError
from tests.sizes import TORTURE, sized
from tests.strategies import TEXT
from tests.unit.dspex.contract.test_envelope import A_COMMAND_OF_EACH

SCHEMAS = Path(__file__).parents[4] / "messages" / "contract" / "schemas"
FORMATS = FormatChecker(["uuid"])
RFC_3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)")

UNSAID = re.compile(
    r"holds the character U\+0000|give .*(or|not both|, one of them|what is to change)|must not be before 'since'"
    r"|is not a URL of the form|has other characters than ASCII|the years 1 to 9999"
    r"|expected .* found|unexpected '|unknown type|the default of \w+: |is listed twice|not one for each value"
    r"|a value is no \w+|a pattern has at most|is not a pattern|null is listed twice|minItems and maxItems must be"
    r"|oneOf.\d+: |only inputs can have one|no value fits its schema"
    r"|enum already lists the values|there are too many extension attributes"
)
"""What a schema has no words for."""

LOOSE_TIME = r"-?[0-9]+(\.[0-9]*)?(e[+-]?[0-9]+)?|[0-9]{4}-[0-9]{2}-[0-9]{2}([Tt _][0-9:.]+(Z|z|[+-][0-9:]+)?)?"
LOOSE = {
    "date-time": re.compile(LOOSE_TIME),
    "uuid": re.compile(r"(urn:uuid:|\{)?[0-9a-fA-F-]{32,36}\}?"),
    "boolean": re.compile(r"(?i)0|1|-?0\.0|1\.0|true|false|t|f|yes|no|y|n|on|off"),
}
"""What is taken beside a schema, since v1 began: times as seconds, dates or without a zone; ids in other forms;
booleans as numbers and words."""

VALUES: list[Any] = [
    *(None, True, False, 0, 1, -1, 2.0, -0.0, 1.5, 1e3, 2**31, 2**53, 2**63, 1e18, 1e300, [], {}, [1], [None]),
    *("", "x", "0", "1.0", "true", "a" * 70, "a" * 513, "é", "\x00", ["x", "x"], {"x": 1}, {"": None}),
    *("2026-11-30T00:00:00Z", "2026-11-30T00:00:00", "2026-11-30 00:00:00+01:00", "2026-11-30"),
    *("0001-01-01T00:00:00+23:59", str(UUID(int=5)), UUID(int=5).hex, f"{{{UUID(int=5)}}}", UUID(int=5).urn),
    *(
        [str(UUID(int=5))],
        "openai/gpt-4o",
        "question -> answer",
        "1.2.3",
        "DSPEX_WEBHOOK_SECRET",
        "https://a.example/b",
    ),
]
REMOVED = "removed: stands for no member"


@FORMATS.checks("date-time")
def _is_time(value: object) -> bool:
    return not isinstance(value, str) or RFC_3339.fullmatch(value) is not None


class Place(NamedTuple):
    """Where a message can be changed: the index of its sample, and the path of a member, which may not be there yet."""

    sample: int
    path: tuple[str | int, ...]


def sample(number: int) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(wrap(A_COMMAND_OF_EACH[number], source="/test").encode())
    return found


@cache
def validator(type_: str) -> Draft202012Validator:
    schema = json.loads((SCHEMAS / f"{type_}.json").read_text(encoding="utf-8"))
    return Draft202012Validator(schema, format_checker=FORMATS)


def members(
    value: Any, schema: Any, definitions: Any, path: tuple[str | int, ...] = ()
) -> Iterator[tuple[str | int, ...]]:
    """The paths of what is in a value, and of what its schema has besides."""
    if path:
        yield path
    while "$ref" in schema:
        schema = definitions[schema["$ref"].removeprefix("#/$defs/")]
    for choice in schema.get("anyOf", ()):
        yield from members(value, choice, definitions, path)
    properties = schema.get("properties", {})
    if isinstance(value, dict):
        for name in {**value, **properties}:
            yield from members(value.get(name), properties.get(name, {}), definitions, (*path, name))
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from members(item, schema.get("items", {}), definitions, (*path, number))


@cache
def places() -> list[Place]:
    found = []
    for number, command in enumerate(A_COMMAND_OF_EACH):
        schema = validator(command.type).schema
        assert isinstance(schema, dict)
        paths = dict.fromkeys(members(sample(number), schema, schema.get("$defs", {})))
        found += [Place(number, path) for path in paths if path != ("type",)]
    return found


def changed(message: dict[str, Any], path: tuple[str | int, ...], value: Any) -> dict[str, Any]:
    """The message with another value there; as it is where there is no such place in it any more."""
    new = copy.deepcopy(message)
    inner: Any = new
    try:
        for name in path[:-1]:
            inner = inner[name]
        if value is not REMOVED:
            inner[path[-1]] = value
        elif isinstance(inner, dict):
            inner.pop(path[-1], None)
    except (KeyError, IndexError, TypeError):
        return message
    return new


def loosely(message: dict[str, Any]) -> list[str]:
    """The problems that its schema has with a message, without those about what is taken beside it."""
    return [
        problem.message
        for problem in _problems(validator(message["type"]).iter_errors(message))
        if not (
            (kind := problem.schema.get("format") or problem.schema.get("type")) in LOOSE
            and isinstance(problem.instance, str | int | float)
            and LOOSE[kind].fullmatch(str(problem.instance))
        )
    ]


def in_our_form(message: dict[str, Any]) -> dict[str, Any]:
    """The message with types of our own where a signature has those of another JSON Schema, which are taken, too."""
    new = copy.deepcopy(message)
    signature = new.get("data", {}).get("signature")
    for side in ("inputs", "outputs"):
        for field in signature.get(side) or () if isinstance(signature, dict) else ():
            if isinstance(field, dict) and isinstance(field.get("type"), dict):
                field["type"] = "str"
                field.pop("$defs", None)
    return new


def _problems(errors: Any) -> Iterator[Any]:
    for error in errors:
        if not error.context:
            yield error
            continue
        # Of a choice: the problems of the one with the fewest, for what may also be null that is the value's.
        choices: dict[int, list[Any]] = {}
        for inner in _problems(error.context):
            choices.setdefault(_choice(inner, error), []).append(inner)
        yield from min(choices.values(), key=lambda found: (found[0].schema.get("type") == "null", len(found)))


def _choice(inner: Any, error: Any) -> int:
    while inner.parent is not error:
        inner = inner.parent
    return int(inner.schema_path[0])


def refused(message: dict[str, Any]) -> str | None:
    """Why the decoder does not take a message."""
    try:
        decode_command(json.dumps(message).encode())
    except DspexError as error:
        return error.message
    return None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(-1e9, 1e9) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=5,
)
CHANGES = st.tuples(st.deferred(lambda: st.sampled_from(places())), st.sampled_from([REMOVED, *VALUES]) | JSON)


def place(type_: str, *path: str | int) -> Place:
    number = next(number for number, command in enumerate(A_COMMAND_OF_EACH) if command.type == type_)
    return Place(number, path)


@settings(max_examples=sized(400, 40_000), derandomize=not TORTURE)
@given(CHANGES, st.sampled_from([REMOVED, *VALUES]), st.integers(min_value=0))
@example((place("dspex.program.execute.v1", "data", "options", "seed"), 1.0), {}, 0)
@example((place("dspex.program.list.v1", "data", "limit"), 2.0), {}, 0)
@example((place("dspex.execution.list.v1", "data", "since"), "2026-11-30T00:00:00"), {}, 0)
@example((place("dspex.program.execute.v1", "sampledrate"), 3.0), {}, 0)
@example((place("dspex.webhook.register.v1", "data", "callback", "headers"), {"": None}), {}, 0)
@example((place("dspex.webhook.register.v1", "data", "callback", "headers"), {"not a name": "x"}), {}, 0)
def test_schemas_and_decoder_take_the_same(change: tuple[Place, Any], second: Any, where: int) -> None:
    """One member is changed, and for three in four messages of these another one."""
    (number, path), value = change
    message = changed(sample(number), path, value)
    if where % 4:
        paths = [other.path for other in places() if other.sample == number]
        message = changed(message, paths[where % len(paths)], second)
    fits = validator(A_COMMAND_OF_EACH[number].type).is_valid(message)
    refusal = refused(message)
    if refusal is None:
        assert fits or loosely(message) == [] or loosely(in_our_form(message)) == []
    elif fits:
        assert UNSAID.search(refusal), refusal

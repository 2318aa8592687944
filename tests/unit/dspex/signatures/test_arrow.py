"""The arrow form: what it reads, what it refuses and where, and that it never imports anything."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dspex import Signature
from dspex.errors import InvalidSignature
from dspex.signatures.arrow import MAX_LENGTH, parse_arrow, parse_type
from dspex.signatures.measures import json_schema
from dspex.signatures.types import MAX_DEPTH

STRING, INTEGER = {"type": "string"}, {"type": "integer"}


def optional(schema: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [schema, {"type": "null"}]}


@pytest.mark.parametrize(
    ("text", "schema"),
    [
        ("str", STRING),
        ("int", INTEGER),
        ("float", {"type": "number"}),
        ("bool", {"type": "boolean"}),
        ("list[str]", {"type": "array", "items": STRING}),
        ("List[str]", {"type": "array", "items": STRING}),
        ("typing.List[str]", {"type": "array", "items": STRING}),
        ("list[list[int]]", {"type": "array", "items": {"type": "array", "items": INTEGER}}),
        ("dict[str, int]", {"type": "object", "additionalProperties": INTEGER}),
        ("Dict[str,int]", {"type": "object", "additionalProperties": INTEGER}),
        ("Optional[int]", optional(INTEGER)),
        ("typing.Optional[int]", optional(INTEGER)),
        ("int | None", optional(INTEGER)),
        ("None | int", optional(INTEGER)),
        ("Optional[int] | None", optional(INTEGER)),
        ("Optional[Optional[int]]", optional(INTEGER)),
        ("list[int | None]", {"type": "array", "items": optional(INTEGER)}),
        ("Literal['a']", STRING | {"enum": ["a"]}),
        ('Literal["a", "b",]', STRING | {"enum": ["a", "b"]}),
        (r"Literal['it\'s', 'a, b']", STRING | {"enum": ["it's", "a, b"]}),
        ("Literal['', ']', '->']", STRING | {"enum": ["", "]", "->"]}),
        ("Literal['é', '\N{GRINNING FACE}']", STRING | {"enum": ["é", "\N{GRINNING FACE}"]}),
        ("Literal[1, -2, True, 'a']", {"enum": [1, -2, True, "a"]}),
        ("Literal[1, True]", {"enum": [1, True]}),
        ("typing.Literal[1]", {"enum": [1]}),
        ("  list [ str ]  ", {"type": "array", "items": STRING}),
        ("list[\n  str\n]", {"type": "array", "items": STRING}),
        ("int | str", {"anyOf": [INTEGER, STRING]}),
        ("Union[str, int, str]", {"anyOf": [STRING, INTEGER]}),
        ("Union[None, int, str]", {"anyOf": [{"type": "null"}, INTEGER, STRING]}),
        ("Optional[int | str]", {"anyOf": [INTEGER, STRING, {"type": "null"}]}),
        ("Union[int, Union[str, None]]", {"anyOf": [INTEGER, STRING, {"type": "null"}]}),
        ("Union[int]", INTEGER),
        ("Union[int, None,]", optional(INTEGER)),
        ("tuple[int, str]", {"type": "array", "prefixItems": [INTEGER, STRING], "minItems": 2, "maxItems": 2}),
        ("Tuple[int]", {"type": "array", "prefixItems": [INTEGER], "minItems": 1, "maxItems": 1}),
        ("set[str]", {"type": "array", "items": STRING, "uniqueItems": True}),
        ("typing.Set[str]", {"type": "array", "items": STRING, "uniqueItems": True}),
        ("Any", {}),
        ("typing.Any", {}),
        ("list", {"type": "array"}),
        ("dict", {"type": "object"}),
        ("list | None", optional({"type": "array"})),
        ("list[Any]", {"type": "array", "items": {}}),
        ("dict[str, Any]", {"type": "object", "additionalProperties": {}}),
        ("datetime.date", STRING | {"format": "date"}),
        ("date", STRING | {"format": "date"}),
        ("datetime.datetime", STRING | {"format": "date-time"}),
        ("datetime", STRING | {"format": "date-time"}),
        ("datetime.time", STRING | {"format": "time"}),
        ("timedelta", STRING | {"format": "duration"}),
        ("uuid.UUID", STRING | {"format": "uuid"}),
        ("decimal.Decimal", STRING | {"format": "decimal"}),
        ("pydantic.AnyUrl", STRING | {"format": "uri"}),
        ("list[EmailStr]", {"type": "array", "items": STRING | {"format": "email"}}),
    ],
)
def test_types_that_are_read(text: str, schema: dict[str, Any]) -> None:
    assert json_schema(parse_type(text)) == schema


@pytest.mark.parametrize(
    ("text", "message", "position"),
    [
        ("", "expected a type", 1),
        ("string", "unknown type 'string'", 1),
        ("any", "unknown type", 1),
        ("object", "unknown type", 1),
        ("datetime.tzinfo", "unknown type 'datetime.tzinfo'", 1),
        ("uuid.date", "unknown type 'uuid.date'", 1),
        ("os.path", "unknown type 'os.path'", 1),
        ("dspy.Code", "unknown type 'dspy.Code'", 1),
        ("Any[int]", "unexpected '['", 4),
        ("list[]", "expected a type", 6),
        ("list[int", "expected ']'", 9),
        ("list[int]]", "unexpected ']'", 10),
        ("list[Foo]", "unknown type 'Foo'", 6),
        ("dict[int, str]", "keys are str", 6),
        ("dict[str]", "expected ','", 9),
        ("int | ", "expected a type", 6),
        ("None", "None alone is no type", 5),
        ("None | None", "None alone is no type", 12),
        ("Optional", "says what is in it", 9),
        ("Optional[None]", "None alone is no type", 14),
        ("Union[]", "expected a type", 7),
        ("tuple[int, ...]", "unexpected '.'", 12),
        ("tuple", "says what is in it", 6),
        ("set", "says what is in it", 4),
        ("frozenset[int]", "unknown type 'frozenset'", 1),
        ("Literal[]", "expected a value", 9),
        ("Literal[1.5]", "lists text, whole numbers", 12),
        ("Literal[None]", "lists text, whole numbers", 13),
        ("Literal[a]", "expected a value", 9),
        ("Literal[1, 1]", "a value twice", 13),
        ("Literal['a' 'b']", "expected ']'", 13),
        ("Literal['a]", "unexpected", 9),
        ("Literal[__import__('os')]", "unexpected '('", 19),
        ("int()", "unexpected '('", 4),
        ("int; str", "unexpected ';'", 4),
        ("int\N{NO-BREAK SPACE}%", "unexpected '%'", 5),
    ],
)
def test_what_is_no_type_is_refused_where_it_stands(text: str, message: str, position: int) -> None:
    with pytest.raises(InvalidSignature, match=f" at character {position} of ") as caught:
        parse_type(text)
    assert message in caught.value.message


def test_a_signature_is_read_with_its_defaults() -> None:
    inputs, outputs = parse_arrow(
        "question, k: int = 3, names: list[str] = ['a', \"b\",], options: dict[str, int] = {'x': 1}, "
        "at: float = -1.5e3, deep: bool = False, hint: str | None = None -> answer: str, score: float"
    )
    assert [(field.name, field.default) for field in inputs if field.has_default] == [
        ("k", 3),
        ("names", ["a", "b"]),
        ("options", {"x": 1}),
        ("at", -1500.0),
        ("deep", False),
        ("hint", None),
    ]
    assert [(field.name, json_schema(field.type)) for field in outputs] == [
        ("answer", STRING),
        ("score", {"type": "number"}),
    ]
    assert inputs[0].type == parse_type("str")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected a field name"),
        ("a", "expected '->'"),
        ("a -> ", "expected a field name"),
        ("-> a", "expected a field name"),
        ("a, -> b", "expected a field name"),
        ("a b -> c", "expected '->', found 'b'"),
        ("a -> b -> c", "unexpected '->'"),
        ("a: -> b", "expected a type"),
        ("a: int = -> b", "expected a value"),
        ("a = b -> c", "expected a value"),
        ("a = 007 -> c", "cannot be read"),
        (r"a = '\x0' -> c", "cannot be read"),
        ("a = {1: 2} -> c", "a dict's keys are text"),
        ("a = [1 2] -> c", "expected ']'"),
        ("a -> b = 1", "output 'b' has a default"),
        ("'a' -> b", "expected a field name"),
        ("1 -> b", "expected a field name"),
        ("a -> b #", "unexpected '#'"),
        ("a = " + "[" * 20 + "]" * 20 + " -> b", f"values nest deeper than {MAX_DEPTH}"),
        ("a: " + "list[" * 20 + "int" + "]" * 20 + " -> b", f"types nest deeper than {MAX_DEPTH}"),
        ("a" * MAX_LENGTH + " -> b", f"longer than {MAX_LENGTH}"),
        ("a = " + "9" * 5_000 + " -> b", "cannot be read"),
    ],
    ids=lambda text: text[:20],
)
def test_what_is_no_signature_is_refused(text: str, message: str) -> None:
    with pytest.raises(InvalidSignature) as caught:
        parse_arrow(text)
    assert message in caught.value.message
    assert len(caught.value.message) < 6_000


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a-b -> c", "unexpected '-'"),
        ("a.b -> c", "inputs.0.name"),
        ("é -> c", "inputs.0.name"),
        ("_a -> c", "inputs.0.name"),
        ("a -> a", "'a' is there twice"),
        ("config -> a", "'config' is a reserved name"),
        ("a: int = 'x' -> b", "the default of a"),
        ("a: int = 1e999 -> b", "default"),
        (r"a = '\x00' -> b", r"U+0000"),
        (r"a = '\ud800' -> b", "not valid Unicode"),
        (r"a -> b: Literal['\x00']", r"U+0000"),
        (r"a -> b: Literal['\ud800']", "not valid Unicode"),
    ],
)
def test_what_the_grammar_allows_the_signature_still_checks(text: str, message: str) -> None:
    with pytest.raises(InvalidSignature) as caught:
        Signature.parse(text)
    assert message in caught.value.message


@settings(deadline=None)
@given(st.text(st.characters(codec="utf-8"), max_size=40) | st.text("ab->:[]{}|,='\"\\ .1strinlLe", max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    with suppress(InvalidSignature):
        Signature.parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "a: side_effect_of_import.Type -> b",
        "a: side_effect_of_import -> b",
        "a: list[side_effect_of_import.Type] -> b",
        "a -> b: typing.side_effect_of_import",
        "a -> b: Literal[side_effect_of_import.VALUE]",
        "a = side_effect_of_import.VALUE -> b",
        "side_effect_of_import.a -> b",
    ],
)
def test_nothing_is_imported(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mark = tmp_path / "imported"
    module = tmp_path / "side_effect_of_import.py"
    module.write_text(f"open({str(mark)!r}, 'w').close()\nclass Type: ...\nVALUE = 'a'\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(InvalidSignature):
        Signature.parse(text)
    assert not mark.exists()
    assert "side_effect_of_import" not in sys.modules

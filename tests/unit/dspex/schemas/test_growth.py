"""What may change in v1 and what may not, for what is asked and for what is told."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from dspex import schemas
from dspex.schemas.growth import breaks
from tests.sizes import sized
from tests.strategies import Schema, field_types, values, variants, widened

SLOW = settings(deadline=None, max_examples=sized(30, 60), suppress_health_check=[HealthCheck.too_slow])

TEXT: Schema = {"type": "string"}
WHOLE: Schema = {"type": "integer"}
NULL: Schema = {"type": "null"}


def fields(required: str = "a", **properties: Any) -> Schema:
    """An object, closed as those of commands are."""
    return {
        "type": "object",
        "properties": properties,
        "required": required.split(),
        "additionalProperties": False,
    }


def either(*schemas: Schema) -> Schema:
    return {"anyOf": list(schemas)}


def tagged(name: str, **properties: Any) -> Schema:
    return fields("type", type={"const": name}, **properties)


# name, then, now, what is said of a command, what is said of an event
CHANGES: list[tuple[str, Schema, Schema, str | None, str | None]] = [
    ("nothing", fields(a=TEXT), fields(a=TEXT), None, None),
    ("a text about it", fields(a=TEXT), fields(a=TEXT | {"description": "x", "title": "A"}), None, None),
    ("a new optional field", fields(a=TEXT), fields(a=TEXT, b=TEXT), None, None),
    ("a new required field", fields(a=TEXT), fields("a b", a=TEXT, b=TEXT), "b: is new, and must be given", None),
    ("a field less", fields(a=TEXT, b=TEXT), fields(a=TEXT), "b: is gone", "b: is gone"),
    ("a new name", fields(a=TEXT), fields("", b=TEXT), "a: is gone", "a: is gone"),
    ("an optional field is required", fields("", a=TEXT), fields(a=TEXT), "a: must be given now", None),
    ("a required field is optional", fields(a=TEXT), fields("", a=TEXT), None, "a: may be missing now"),
    ("null is allowed", fields(a=TEXT), fields(a=either(TEXT, NULL)), None, "a: may be null, and string is read"),
    ("null is forbidden", fields(a=either(TEXT, NULL)), fields(a=TEXT), "a: may be null, and string is read", None),
    ("another type", fields(a=TEXT), fields(a=WHOLE), "a: may be string, and integer is read", "a: may be integer"),
    ("integer → number", fields(a=WHOLE), fields(a={"type": "number"}), None, "a: may be number, and integer is read"),
    ("number → integer", fields(a={"type": "number"}), fields(a=WHOLE), "a: may be number", None),
    ("a looser bound", fields(a=TEXT | {"maxLength": 3}), fields(a=TEXT | {"maxLength": 9}), None, "a: maxLength is 3"),
    (
        "a tighter bound",
        fields(a=TEXT | {"minLength": 1}),
        fields(a=TEXT | {"minLength": 2}),
        "a: minLength is 2",
        None,
    ),
    ("a new bound", fields(a=TEXT), fields(a=TEXT | {"pattern": "^a"}), "a: pattern is '^a' for the reader", None),
    (
        "another format",
        fields(a=TEXT | {"format": "uuid"}),
        fields(a=TEXT | {"format": "date"}),
        "a: format",
        "a: format",
    ),
    (
        "a longer list",
        fields(a={"enum": ["x"]}),
        fields(a={"enum": ["x", "y"]}),
        None,
        "a: may be 'y', which is not read",
    ),
    ("a shorter list", fields(a={"enum": ["x", "y"]}), fields(a={"enum": ["x"]}), "a: may be 'y'", None),
    ("1 is not true", fields(a={"enum": [1]}), fields(a={"enum": [True]}), "a: may be 1", "a: may be True"),
    ("a list is freed", fields(a={"enum": ["x"]}), fields(a=TEXT), None, "a: takes only listed values now"),
    (
        "an open list grows",
        fields(a=TEXT | {"x-extensible-enum": ["x"]}),
        fields(a=TEXT | {"x-extensible-enum": ["x", "y"]}),
        None,
        None,
    ),
    ("a choice more", fields(a=either(TEXT, NULL)), fields(a=either(TEXT, WHOLE, NULL)), None, "a: may be integer"),
    ("a choice less", fields(a=either(TEXT, WHOLE, NULL)), fields(a=either(TEXT, NULL)), "a: may be integer", None),
    (
        "items",
        {"type": "array", "items": TEXT},
        {"type": "array", "items": WHOLE},
        "[]: may be string",
        "[]: may be int",
    ),
    (
        "a field of an item",
        {"type": "array", "items": fields(a=TEXT)},
        {"type": "array", "items": fields("a b", a=TEXT, b=TEXT)},
        "[].b: is new, and must be given",
        None,
    ),
    (
        "a field of a choice",
        either(tagged("x", a=TEXT), tagged("y", a=TEXT)),
        either(tagged("x", a=TEXT), tagged("y")),
        "a: is gone",
        "a: is gone",
    ),
    ("the number of items", {"prefixItems": [TEXT]}, {"prefixItems": [TEXT, TEXT]}, "another number", "another number"),
    (
        "the values of a map",
        {"type": "object", "additionalProperties": TEXT},
        {"type": "object", "additionalProperties": WHOLE},
        "{}: may be string",
        "{}: may be integer",
    ),
    ("a map is closed", {"type": "object"}, fields(""), "takes no other fields any more", None),
    (
        "another default",
        fields("", a=WHOLE | {"default": 1}),
        fields("", a=WHOLE | {"default": 2}),
        "another default",
        None,
    ),
    (
        "a default with new fields",
        fields("", a={"type": "object", "default": {"x": None}}),
        fields("", a={"type": "object", "default": {"y": 1}}),
        None,
        None,
    ),
]


@pytest.mark.parametrize("asked", [True, False], ids=["asked", "told"])
@pytest.mark.parametrize(
    ("then", "now", "as_command", "as_event"), [c[1:] for c in CHANGES], ids=[c[0] for c in CHANGES]
)
def test_what_a_change_breaks(
    then: Schema, now: Schema, as_command: str | None, as_event: str | None, asked: bool
) -> None:
    said = [str(problem) for problem in breaks(then, now, asked=asked)]
    expected = as_command if asked else as_event
    assert len(said) == (0 if expected is None else 1), said
    assert expected is None or expected in said[0]


def test_a_type_that_holds_itself_is_compared_once() -> None:
    def tree(leaf: Schema) -> Schema:
        node = fields("", leaf=leaf, branches={"type": "array", "items": {"$ref": "#/$defs/Node"}})
        return {"$ref": "#/$defs/Node", "$defs": {"Node": node}}

    assert breaks(tree(TEXT), tree(TEXT), asked=True) == []
    assert [str(found) for found in breaks(tree(TEXT), tree(WHOLE), asked=True)] == [
        "leaf: may be string, and integer is read"
    ]


def test_no_document_breaks_itself() -> None:
    documents = schemas.documents()
    assert schemas.broken(documents, documents) == {}


@SLOW
@given(st.data())
def test_what_was_sent_is_taken_where_nothing_is_said(data: st.DataObject) -> None:
    then = data.draw(field_types())
    now = data.draw(variants(then))
    if not breaks(then, now, asked=True):
        Draft202012Validator(now).validate(data.draw(values(then)))
    if not breaks(then, now, asked=False):
        opened = _opened(then)
        Draft202012Validator(opened).validate(data.draw(values(now)))


@SLOW
@given(st.data())
def test_what_only_grows_is_no_break(data: st.DataObject) -> None:
    then = data.draw(field_types())
    now = data.draw(widened(then))
    assert breaks(then, now, asked=True) == []


def _opened(schema: Any) -> Any:
    """As events are read: without regard to other fields. No property of these schemas has a keyword's name."""
    match schema:
        case dict():
            return {
                key: _opened(value) for key, value in schema.items() if (key, value) != ("additionalProperties", False)
            }
        case list():
            return [_opened(item) for item in schema]
    return schema


def test_alternatives_that_a_property_tells_apart() -> None:
    def kind(name: str) -> Schema:
        return fields("kind", kind={"const": name}, text=TEXT)

    both = {"oneOf": [kind("a"), kind("b")], "discriminator": {"propertyName": "kind"}}
    assert breaks(both, both, asked=True) == []
    assert breaks(both, {"anyOf": [kind("a"), kind("b"), WHOLE]}, asked=True) == []
    assert breaks(both, {"anyOf": [kind("a"), WHOLE]}, asked=True) != []


def test_a_later_alternative_is_no_break_of_what_is_told() -> None:
    before = {"type": "object", "properties": {"a": {"type": "string", "maxLength": 4}}}
    longer = {"type": "string", "maxLength": 8}
    for later, told in (({"x-later": True}, []), ({}, ["a"])):
        choices = {"anyOf": [{"type": "string", "maxLength": 4}, longer | later]}
        after = {"type": "object", "properties": {"a": choices}}
        assert [found.path for found in breaks(before, after, asked=False)] == told
        assert list(breaks(before, after, asked=True)) == []
    alone = {"type": "object", "properties": {"a": longer | {"x-later": True}}}
    assert [found.path for found in breaks(before, alone, asked=False)] == ["a"]

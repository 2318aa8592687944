"""What a new version means for callers of the old one: in cases, and against the validators as a property."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, Literal

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from dspex import Signature
from dspex.errors import InvalidInput
from dspex.signatures.compatibility import Change, Compatibility, compare
from tests.strategies import field_types, next_versions, signatures, values, variants, widened

SLOW = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

TEXT = {"type": "string"}
INTEGER = {"type": "integer"}
NUMBER = {"type": "number"}


def as_input(schema: Any) -> Signature:
    return Signature.parse({"inputs": [{"name": "x", "type": schema}], "outputs": [{"name": "y", "type": "str"}]})


def as_output(schema: Any) -> Signature:
    return Signature.parse({"inputs": [{"name": "y", "type": "str"}], "outputs": [{"name": "x", "type": schema}]})


def an_object(required: list[str], **properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": required}


def said(result: Compatibility) -> list[tuple[str, str, str, bool]]:
    return [(change.direction, change.field, change.kind, change.compatible) for change in result.changes]


# Fields


@pytest.mark.parametrize(
    ("old", "new", "changes"),
    [
        ("q -> a", "q, k: int -> a", [("inputs", "k", "added", False)]),
        ("q -> a", "q, k: int = 3 -> a", [("inputs", "k", "added", True)]),
        ("q -> a", "q, k: Optional[int] -> a", [("inputs", "k", "added", True)]),
        ("q, k: int -> a", "q -> a", [("inputs", "k", "removed", False)]),
        ("q, k: int = 3 -> a", "q -> a", [("inputs", "k", "removed", False)]),
        ("q, k: int -> a", "q, k: int = 3 -> a", [("inputs", "k", "optional", True)]),
        ("q, k: int = 3 -> a", "q, k: int -> a", [("inputs", "k", "required", False)]),
        ("q, k: int = 3 -> a", "q, k: int = 4 -> a", [("inputs", "k", "default", True)]),
        ("q, k: int -> a", "q, k: Optional[int] -> a", [("inputs", "k", "optional", True)]),
        ("q, k: Optional[int] -> a", "q, k: int -> a", [("inputs", "k", "required", False)]),
        ("q, k: Optional[int] -> a", "q, k: Optional[int] = 3 -> a", [("inputs", "k", "default", True)]),
        (
            "q, k: Optional[int] -> a",
            "q, k: int = 3 -> a",
            [("inputs", "k", "required", False), ("inputs", "k", "default", True)],
        ),
        ("q -> a", "q -> a, b", [("outputs", "b", "added", True)]),
        ("q -> a, b", "q -> a", [("outputs", "b", "removed", False)]),
        ("q -> a", "q -> a: Optional[str]", [("outputs", "a", "optional", False)]),
        ("q -> a: Optional[str]", "q -> a", [("outputs", "a", "required", True)]),
        ("q, c -> a", "q -> a, c", [("inputs", "c", "removed", False), ("outputs", "c", "added", True)]),
        ("q -> a", "r -> a", [("inputs", "q", "removed", False), ("inputs", "r", "added", False)]),
    ],
)
def test_fields(old: str, new: str, changes: list[tuple[str, str, str, bool]]) -> None:
    result = compare(Signature.parse(old), Signature.parse(new))
    assert said(result) == changes
    assert result.compatible == all(compatible for *_, compatible in changes)
    assert result.breaking == tuple(change for change in result.changes if not change.compatible)
    assert result.notes == ()


# Types


def a_tuple(*items: Any) -> dict[str, Any]:
    return {"type": "array", "prefixItems": list(items), "minItems": len(items), "maxItems": len(items)}


TAGGED = {
    "oneOf": [an_object(["kind"], kind={"const": "a"}), an_object(["kind"], kind={"const": "b"}, n=INTEGER)],
    "discriminator": {"propertyName": "kind"},
}

WIDER: list[tuple[Any, Any, str]] = [
    (INTEGER, NUMBER, "x"),
    (INTEGER | {"minimum": 3}, INTEGER, "x"),
    (INTEGER | {"minimum": 3}, INTEGER | {"minimum": 2}, "x"),
    (INTEGER | {"minimum": 3}, INTEGER | {"exclusiveMinimum": 1}, "x"),
    (INTEGER | {"multipleOf": 6}, INTEGER | {"multipleOf": 3}, "x"),
    (INTEGER | {"minimum": 1, "maximum": 7, "multipleOf": 7}, INTEGER | {"minimum": 7}, "x"),
    (INTEGER | {"minimum": 1, "maximum": 2}, {"enum": [0, 1, 2]}, "x"),
    (INTEGER | {"maximum": 3}, NUMBER | {"exclusiveMaximum": 3.5}, "x"),
    (NUMBER | {"exclusiveMinimum": 0}, NUMBER | {"minimum": 0}, "x"),
    (NUMBER | {"maximum": 1}, NUMBER | {"maximum": 1.5}, "x"),
    (TEXT | {"maxLength": 3}, TEXT | {"maxLength": 4}, "x"),
    (TEXT | {"enum": ["a"]}, TEXT | {"enum": ["b", "a"]}, "x"),
    (TEXT | {"enum": ["a"]}, {"enum": ["a", 1]}, "x"),
    (TEXT | {"enum": ["a"]}, TEXT | {"minLength": 1}, "x"),
    (TEXT | {"maxLength": 0}, TEXT | {"enum": ["", "a"]}, "x"),
    ({"enum": [1, 3]}, INTEGER | {"minimum": 1, "maximum": 3}, "x"),
    ({"enum": [1, 3]}, NUMBER, "x"),
    ({"enum": [3]}, NUMBER | {"minimum": 3, "maximum": 3}, "x"),  # 3.0 is in the one and not in the other
    ({"enum": [True]}, {"type": "boolean"}, "x"),
    ({"enum": [1]}, {"enum": [True, 1]}, "x"),
    ({"type": "array", "items": INTEGER}, {"type": "array", "items": NUMBER}, "x[]"),
    ({"type": "array", "items": TEXT, "maxItems": 2}, {"type": "array", "items": TEXT}, "x"),
    ({"type": "array", "items": TEXT, "minItems": 2}, {"type": "array", "items": TEXT, "minItems": 1}, "x"),
    ({"type": "object", "additionalProperties": INTEGER}, {"type": "object", "additionalProperties": NUMBER}, "x{}"),
    (an_object(["a"], a=INTEGER), an_object(["a"], a=NUMBER), "x.a"),
    (an_object(["a"], a=INTEGER), {"type": "object", "additionalProperties": NUMBER}, "x"),
    (an_object(["a"], a={"type": "array", "items": INTEGER}), an_object(["a"], a={"type": "array", "items": NUMBER}),
     "x.a[]"),
    ({"anyOf": [INTEGER, {"type": "null"}]}, {"anyOf": [NUMBER, {"type": "null"}]}, "x"),
    (INTEGER | {"minimum": 0, "maximum": 10**400}, NUMBER | {"minimum": 0}, "x"),  # too large for a double
    (INTEGER | {"minimum": -(10**400), "maximum": 0}, NUMBER | {"maximum": 0}, "x"),
    (TEXT | {"format": "date"}, TEXT, "x"),
    (TEXT | {"format": "date", "maxLength": 10}, TEXT | {"format": "date"}, "x"),
    (TEXT | {"pattern": "^a"}, TEXT, "x"),
    (TEXT | {"enum": ["2026-11-30"]}, TEXT | {"format": "date"}, "x"),
    (TEXT | {"enum": ["ab"]}, TEXT | {"pattern": "^a"}, "x"),
    ({"const": "a"}, TEXT | {"enum": ["a", "b"]}, "x"),
    ({"const": 1}, NUMBER, "x"),
    (TEXT, {}, "x"),
    ({"anyOf": [TEXT, {"type": "null"}]}, {}, "x"),
    (an_object(["a"], a=TEXT), {}, "x"),
    ({"type": "array", "items": TEXT}, {"type": "array"}, "x[]"),
    (INTEGER, {"anyOf": [INTEGER, TEXT]}, "x"),
    ({"anyOf": [INTEGER, TEXT]}, {"anyOf": [TEXT, NUMBER]}, "x"),
    ({"anyOf": [INTEGER, TEXT]}, {}, "x"),
    ({"anyOf": [an_object(["a"], a=TEXT), TEXT]}, {"anyOf": [TEXT, {"type": "object"}]}, "x"),
    (an_object(["kind"], kind={"const": "a"}), TAGGED, "x"),
    (TAGGED, {"type": "object"}, "x"),
    ({"type": "array", "items": TEXT, "uniqueItems": True}, {"type": "array", "items": TEXT}, "x"),
    (a_tuple(INTEGER, TEXT), a_tuple(NUMBER, TEXT), "x[0]"),
    ({"type": "object", "additionalProperties": TEXT}, {"type": "object"}, "x{}"),
    (an_object(["a"], a=TEXT), {"type": "object"}, "x"),
]  # fmt: skip

OTHER: list[tuple[Any, Any, str]] = [
    (TEXT, INTEGER, "x"),
    (INTEGER | {"minimum": 0, "maximum": 500}, INTEGER | {"minimum": 1, "maximum": 501}, "x"),
    (INTEGER | {"multipleOf": 2}, INTEGER | {"multipleOf": 3}, "x"),
    (INTEGER, NUMBER | {"minimum": 0}, "x"),
    (INTEGER | {"maximum": 2**54 - 1}, NUMBER | {"exclusiveMaximum": 2**54}, "x"),  # rounded, it is the bound
    (TEXT | {"enum": ["a"]}, TEXT | {"enum": ["b"]}, "x"),
    ({"enum": [1]}, {"enum": [True]}, "x"),
    ({"enum": ["1"]}, {"enum": [1]}, "x"),
    ({"type": "boolean"}, INTEGER, "x"),
    (TEXT | {"format": "date"}, TEXT | {"format": "date-time"}, "x"),
    (TEXT | {"pattern": "^a"}, TEXT | {"pattern": "^ab"}, "x"),  # it is not found out
    (TEXT | {"enum": ["2026-02-30"]}, TEXT | {"format": "date"}, "x"),
    ({"const": 1}, {"const": True}, "x"),
    ({"anyOf": [INTEGER, TEXT]}, {"anyOf": [TEXT, {"type": "boolean"}]}, "x"),
    (a_tuple(INTEGER, TEXT), a_tuple(INTEGER), "x"),
    (a_tuple(INTEGER, TEXT), {"type": "array", "items": {"anyOf": [INTEGER, TEXT]}}, "x"),  # it is not found out
    (an_object(["a"], a=TEXT), {"type": "object", "additionalProperties": NUMBER}, "x"),
    ({"type": "array", "items": TEXT}, TEXT, "x"),
    ({"type": "array", "items": TEXT}, {"type": "object", "additionalProperties": TEXT}, "x"),
]


@pytest.mark.parametrize(("narrow", "wide", "path"), WIDER)
def test_more_values_may_come_in_and_fewer_go_out(narrow: Any, wide: Any, path: str) -> None:
    assert said(compare(as_input(narrow), as_input(wide))) == [("inputs", path, "widened", True)]
    assert said(compare(as_input(wide), as_input(narrow))) == [("inputs", path, "narrowed", False)]
    assert said(compare(as_output(narrow), as_output(wide))) == [("outputs", path, "widened", False)]
    assert said(compare(as_output(wide), as_output(narrow))) == [("outputs", path, "narrowed", True)]


@pytest.mark.parametrize(("one", "other", "path"), OTHER)
def test_other_values_break_on_both_sides(one: Any, other: Any, path: str) -> None:
    for old, new in ((one, other), (other, one)):
        assert said(compare(as_input(old), as_input(new))) == [("inputs", path, "changed", False)]
        assert said(compare(as_output(old), as_output(new))) == [("outputs", path, "changed", False)]


@pytest.mark.parametrize(
    ("old", "new", "path", "kind", "as_input_fine", "as_output_fine"),
    [
        (an_object([], a=TEXT), an_object([], a=TEXT, b=TEXT), "x.b", "added", True, True),
        (an_object([], a=TEXT), an_object(["b"], a=TEXT, b=TEXT), "x.b", "added", False, True),
        (an_object([], a=TEXT, b=TEXT), an_object([], a=TEXT), "x.b", "removed", False, False),
        (an_object(["a"], a=TEXT), an_object([], a=TEXT), "x.a", "optional", True, False),
        (an_object([], a=TEXT), an_object(["a"], a=TEXT), "x.a", "required", False, True),
    ],
)
def test_properties(old: Any, new: Any, path: str, kind: str, as_input_fine: bool, as_output_fine: bool) -> None:
    assert said(compare(as_input(old), as_input(new))) == [("inputs", path, kind, as_input_fine)]
    assert said(compare(as_output(old), as_output(new))) == [("outputs", path, kind, as_output_fine)]


def test_messages_say_what_it_was_and_is() -> None:
    old = as_input(INTEGER | {"minimum": 0, "description": "how many"})
    (change,) = compare(old, as_input(NUMBER)).changes
    assert change.message == "more values fit: was integer (minimum 0), is number"
    (change,) = compare(as_output({"enum": ["a", 1]}), as_output({"enum": ["b", 1, True]})).changes
    assert change.message == 'other values fit: added "b", true; removed "a"'
    (change,) = compare(as_output({"enum": [0]}), as_output({"enum": [*range(9), "x" * 99]})).changes
    assert change.message == "more values fit: added 1, 2, 3, 4, 5 and 4 more"


# Notes


def test_what_only_the_lm_sees_is_noted() -> None:
    old = {
        "inputs": [
            {"name": "q", "type": {"type": "array", "items": TEXT | {"description": "one"}}, "description": "all"},
            {"name": "k", "type": INTEGER | {"minimum": 3}},
        ],
        "outputs": [{"name": "a", "type": an_object(["b"], b=TEXT | {"description": "old"})}],
    }
    new = {
        "instructions": "Do it.",
        "inputs": [
            {"name": "k", "type": INTEGER | {"exclusiveMinimum": 2}},
            {"name": "q", "type": {"type": "array", "items": TEXT | {"description": "two"}}, "description": "every"},
        ],
        "outputs": [{"name": "a", "type": an_object(["b"], b=TEXT | {"description": "new"})}],
    }
    assert compare(Signature.parse(old), Signature.parse(new)) == Compatibility(
        compatible=True,
        notes=(
            "the instructions changed",
            "inputs: the order changed",
            "inputs.q: the description changed",
            "inputs.q[]: the description changed",
            "inputs.k: is written differently, the same values fit",
            "outputs.a.b: the description changed",
        ),
    )


def test_name_module_and_version_are_not_compared() -> None:
    old = Signature.parse({"arrow": "q -> a", "name": "one", "module": "acme.one", "version": "1.0.0"})
    new = Signature.parse({"arrow": "q -> a", "name": "two", "module": "acme.two", "version": "2.0.0"})
    assert compare(old, new) == Compatibility(compatible=True)


def test_the_result_is_data() -> None:
    result = compare(Signature.parse("q -> a"), Signature.parse({"arrow": "r -> a", "instructions": "Do it."}))
    assert Compatibility.model_validate_json(result.model_dump_json()) == result
    with pytest.raises(ValidationError):
        Change.model_validate({**result.changes[0].model_dump(), "kind": "other"})


# Against the validators


@SLOW
@given(st.data())
def test_it_is_silent_exactly_where_the_digests_are_equal(data: st.DataObject) -> None:
    drawn = data.draw(signatures())
    old = Signature.parse(drawn)
    assert compare(old, Signature.parse(drawn)) == Compatibility(compatible=True)
    new = Signature.parse(data.draw(next_versions(drawn)))
    result = compare(old, new)
    assert (not result.changes and not result.notes) == (old.digest == new.digest)


@SLOW
@given(st.data())
def test_compatible_inputs_are_still_taken(data: st.DataObject) -> None:
    drawn = data.draw(signatures().flatmap(next_versions))
    new_data = data.draw(next_versions(drawn))
    old, new = Signature.parse(drawn), Signature.parse(new_data)
    if not fine(compare(old, new), "inputs"):
        return
    given_inputs = data.draw(sent(drawn["inputs"]))
    old.validate_inputs(given_inputs)
    new.validate_inputs(given_inputs)


@SLOW
@given(st.data())
def test_compatible_outputs_are_still_read(data: st.DataObject) -> None:
    drawn = data.draw(signatures().flatmap(next_versions))
    new_data = data.draw(next_versions(drawn))
    old, new = Signature.parse(drawn), Signature.parse(new_data)
    if not fine(compare(old, new), "outputs"):
        return
    outputs = new.validate_outputs(data.draw(sent(new_data["outputs"])))
    types = {field["name"]: field["type"] for field in drawn["outputs"]}
    old.validate_outputs({name: known(outputs[name], types[name]) for name in types if name in outputs})


@SLOW
@given(st.data())
def test_a_variant_called_compatible_holds_for_every_value(data: st.DataObject) -> None:
    """The two above, closer: one field, and types that are nearly alike."""
    old = data.draw(field_types(), label="old")
    new = data.draw(variants(old), label="new")
    if compare(as_input(old), as_input(new)).compatible:
        value = data.draw(values(old))
        as_input(new).validate_inputs({"x": value})
    if compare(as_output(old), as_output(new)).compatible:
        value = data.draw(values(new))
        as_output(old).validate_outputs({"x": known(value, old)})


@SLOW
@given(st.data())
def test_a_widened_type_is_called_so(data: st.DataObject) -> None:
    """Breaking is not said for safety's sake."""
    narrow = data.draw(field_types(), label="narrow")
    wide = data.draw(widened(narrow), label="wide")
    assert compare(as_input(narrow), as_input(wide)).compatible
    assert compare(as_output(wide), as_output(narrow)).compatible


BOUNDS = st.one_of(st.none(), st.integers(-20, 20))


@SLOW
@given(st.data())
def test_whole_numbers_are_compared_exactly(data: st.DataObject) -> None:
    old, new = (data.draw(st.tuples(BOUNDS, BOUNDS, st.integers(1, 6))) for _ in range(2))
    # Steps of at most 6 repeat after 30, so what fits shows within 100.
    before, after = ([n for n in range(-100, 101) if holds(bounds, n)] for bounds in (old, new))
    assume(before and after)
    result = compare(as_input(whole(old)), as_input(whole(new)))
    assert result.compatible == (set(before) <= set(after))
    assert (result.changes == ()) == (before == after)


def whole(bounds: tuple[int | None, int | None, int]) -> dict[str, Any]:
    low, high, step = bounds
    keywords = {"minimum": low, "exclusiveMaximum": high, "multipleOf": step}
    return INTEGER | {key: bound for key, bound in keywords.items() if bound is not None}


def holds(bounds: tuple[int | None, int | None, int], number: int) -> bool:
    low, high, step = bounds
    return (low is None or low <= number) and (high is None or number < high) and number % step == 0


def fine(result: Compatibility, direction: Literal["inputs", "outputs"]) -> bool:
    return all(change.compatible for change in result.changes if change.direction == direction)


def sent(fields: list[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    """Values of fields; those that may be left out sometimes are."""
    members = {field["name"]: values(field["type"]) for field in fields}
    loose = {field["name"] for field in fields if "default" in field or "anyOf" in field["type"]}
    return st.fixed_dictionaries(
        {name: member for name, member in members.items() if name not in loose},
        optional={name: member for name, member in members.items() if name in loose},
    )


def _known_of_one(value: Any, choices: list[dict[str, Any]]) -> Any:
    for choice in choices:
        if choice == {"type": "null"}:
            continue
        seen = known(value, choice)
        with suppress(InvalidInput):
            return as_input(choice).validate_inputs({"x": seen})["x"]
    return value


def known(value: Any, schema: dict[str, Any]) -> Any:
    """What a reader by name sees of a value: the properties that the type has."""
    if "anyOf" in schema or "oneOf" in schema:
        return _known_of_one(value, schema["oneOf"] if "oneOf" in schema else schema["anyOf"])
    match value, schema:
        case list(), {"prefixItems": inners}:
            return [known(item, inner) for item, inner in zip(value, inners, strict=False)]
        case dict(), {"properties": properties}:
            return {name: known(item, properties[name]) for name, item in value.items() if name in properties}
        case dict(), {"additionalProperties": dict() as inner}:
            return {name: known(item, inner) for name, item in value.items()}
        case list(), {"items": inner}:
            return [known(item, inner) for item in value]
    return value


def test_the_same_in_other_words_is_a_note() -> None:
    for one, other in [({"type": "array"}, {"type": "array", "items": {}}), ({"const": "a"}, TEXT | {"enum": ["a"]})]:
        result = compare(as_input(one), as_input(other))
        assert (result.changes, result.notes) == ((), ("inputs.x: is written differently, the same values fit",))


def test_unions_too_large_to_compare_are_the_same_or_changed() -> None:
    large = {"anyOf": [an_object([], **{f"p{n}{k}": INTEGER for k in range(20)}) for n in range(32)]}
    assert compare(as_input(large), as_input(large)).changes == ()
    other = {"anyOf": [*large["anyOf"][1:], TEXT]}
    assert said(compare(as_input(large), as_input(other))) == [("inputs", "x", "changed", False)]

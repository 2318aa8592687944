"""Types as data, and what validates against them."""

from __future__ import annotations

import json
from datetime import date
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from pydantic import TypeAdapter

from dspex import Signature
from dspex.errors import DspexError, InvalidInput, InvalidSignature
from dspex.signatures.measures import depth, json_schema
from dspex.signatures.types import MAX_DEPTH, FieldType
from tests.sizes import sized
from tests.strategies import field_types, values

TYPES: TypeAdapter[Any] = TypeAdapter(FieldType)


def of_type(schema: Any) -> Signature:
    return Signature.parse({"inputs": [{"name": "x", "type": schema}], "outputs": [{"name": "y", "type": "str"}]})


def accepts(signature: Signature, inputs: dict[str, Any]) -> bool:
    try:
        signature.validate_inputs(inputs)
    except InvalidInput:
        return False
    return True


@settings(deadline=None)
@given(field_types())
def test_a_type_comes_back_from_json_as_it_was(schema: dict[str, Any]) -> None:
    assert json_schema(TYPES.validate_python(schema)) == schema


@settings(deadline=None)
@given(field_types())
def test_a_type_is_json_schema(schema: dict[str, Any]) -> None:
    Draft202012Validator.check_schema(of_type(schema).input_schema())


@settings(deadline=None, max_examples=sized(60, 200), suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_validation_agrees_with_json_schema(data: st.DataObject) -> None:
    schema = data.draw(field_types(), label="type")
    value = data.draw(values(schema, exact=False), label="value")
    signature = of_type(schema)
    inputs = {"x": value}
    expected = Draft202012Validator(signature.input_schema()).is_valid(inputs)
    if '"format"' in json.dumps(schema):  # which JSON Schema does not check
        assert expected or not accepts(signature, inputs)
    else:
        assert accepts(signature, inputs) == expected


def test_items_that_differ_by_an_absent_member_are_different() -> None:
    item = {"type": "object", "properties": {"a": {"anyOf": [{"type": "string"}, {"type": "null"}]}}, "required": []}
    signature = of_type({"type": "array", "items": item, "uniqueItems": True})
    assert accepts(signature, {"x": [{}, {"a": None}, {"a": "b"}]})
    assert not accepts(signature, {"x": [{"a": None}, {"a": None}]})
    assert not accepts(signature, {"x": [{}, {}]})


@pytest.mark.parametrize("times", [1, 2, 3])
def test_an_optional_of_an_optional_is_read_as_what_is_in_it(times: int) -> None:
    def kind(name: str) -> dict[str, Any]:
        return {"type": "object", "properties": {"kind": {"const": name}}, "required": ["kind"]}

    told = {"oneOf": [kind("a"), kind("b")], "discriminator": {"propertyName": "kind"}}
    for inner, fits, not_ in ((told, {"kind": "b"}, {"kind": "c"}), ({"type": "integer"}, 2.0, 2.5)):
        schema: Any = inner
        for _ in range(times):
            schema = {"anyOf": [schema, {"type": "null"}]}
        signature = of_type(schema)
        assert accepts(signature, {"x": fits})
        assert accepts(signature, {"x": None})
        assert not accepts(signature, {"x": not_})


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_what_fits_is_returned_as_it_was(data: st.DataObject) -> None:
    schema = data.draw(field_types(), label="type")
    value = data.draw(values(schema), label="value")
    assert of_type(schema).validate_inputs({"x": value}) == {"x": value}


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"type": "integer"}, "3"),
        ({"type": "integer"}, 3.5),
        ({"type": "integer"}, True),
        ({"type": "number"}, "1.5"),
        ({"type": "number"}, True),
        ({"type": "number"}, float("nan")),
        ({"type": "number"}, float("inf")),
        ({"type": "number"}, 10**400),
        ({"type": "boolean"}, 1),
        ({"type": "boolean"}, "true"),
        ({"type": "string"}, 1),
        ({"type": "string"}, b"text"),
        ({"type": "string"}, None),
        ({"enum": [1]}, True),
        ({"enum": [1]}, 1.5),
        ({"enum": [True]}, 1),
        ({"enum": ["1"]}, 1),
        ({"enum": ["a"]}, ["a"]),
        ({"type": "array", "items": {"type": "integer"}}, (1, 2)),
        ({"type": "array", "items": {"type": "integer"}}, {1, 2}),
        ({"type": "array", "items": {"type": "string"}}, "abc"),
        ({"type": "object", "additionalProperties": {"type": "integer"}}, {1: 2}),
        ({"type": "object", "additionalProperties": {"type": "integer"}}, [("a", 1)]),
    ],
)
def test_nothing_is_coerced(schema: dict[str, Any], value: Any) -> None:
    with pytest.raises(InvalidInput) as caught:
        of_type(schema).validate_inputs({"x": value})
    assert [problem.field.split(".")[0] for problem in caught.value.problems] == ["x"]


@pytest.mark.parametrize(
    ("schema", "value", "taken"),
    [
        ({"type": "integer"}, 3.0, 3),
        ({"type": "integer", "minimum": 3, "multipleOf": 3}, 6.0, 6),
        ({"type": "integer", "minimum": 3, "maximum": 3}, 3, 3),
        ({"anyOf": [{"type": "integer", "maximum": 2}, {"type": "null"}]}, 2.0, 2),
        ({"type": "array", "items": {"type": "integer"}}, [1.0, -0.0], [1, 0]),
        ({"type": "object", "properties": {"n": {"type": "integer"}}, "required": []}, {"n": 1e16}, {"n": 10**16}),
        ({"enum": [1, "a"]}, 1.0, 1),
    ],
)
def test_a_whole_number_is_an_integer_however_it_is_written(schema: dict[str, Any], value: Any, taken: Any) -> None:
    inputs = of_type(schema).validate_inputs({"x": value})
    assert inputs == {"x": taken}
    assert "." not in json.dumps(inputs)


def test_one_and_true_are_two_values_of_an_enum() -> None:
    signature = of_type({"enum": [True, 1]})
    assert signature.validate_inputs({"x": 1})["x"] is not True
    assert signature.validate_inputs({"x": True})["x"] is True


@pytest.mark.parametrize(
    "name",
    [
        "model_config",
        "model_dump",
        "copy",
        "json",
        "schema",
        "class",
        "self",
        "None",
        "p0",
        "a b",
        "@type",
        "_id",
        "1",
        "é",
    ],
)
@pytest.mark.filterwarnings("error")
def test_a_property_may_have_any_name(name: str) -> None:
    signature = of_type({"type": "object", "properties": {name: {"type": "integer"}}, "required": [name]})
    assert signature.validate_inputs({"x": {name: 1}}) == {"x": {name: 1}}
    with pytest.raises(InvalidInput, match=rf"x\.{name}: is missing"):
        signature.validate_inputs({"x": {}})


def test_an_optional_property_stays_away_or_is_of_its_type() -> None:
    signature = of_type({"type": "object", "properties": {"a": {"type": "integer"}}, "required": []})
    assert signature.validate_inputs({"x": {}}) == {"x": {}}
    with pytest.raises(InvalidInput, match=r"x\.a: "):
        signature.validate_inputs({"x": {"a": None}})


@pytest.mark.parametrize(
    "value", ["a\x00b", "\ud800", ["\x00"], {"k": "\ud800"}, {"\x00": "v"}, {"\ud800": "v"}], ids=ascii
)
def test_text_that_cannot_be_stored_is_refused_by_the_name_of_its_field(value: Any) -> None:
    text = {"type": "string"}
    schemas: dict[type, dict[str, Any]] = {
        str: text,
        list: {"type": "array", "items": text},
        dict: {"type": "object", "additionalProperties": text},
    }
    with pytest.raises(InvalidInput) as caught:
        of_type(schemas[type(value)]).validate_inputs({"x": value})
    assert caught.value.problems[0].field.startswith("x")


def told_apart(*kinds: dict[str, Any], required: Any = ("kind",)) -> dict[str, Any]:
    """A union of objects with these types of the property `kind`."""
    objects = [{"type": "object", "properties": {"kind": kind, "n": {}}, "required": list(required)} for kind in kinds]
    return {"oneOf": objects, "discriminator": {"propertyName": "kind", "mapping": {"a": "#/$defs/A"}}}


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ({"minLength": 3}, "minLength: is not a known field"),
        ({"type": "text"}, "is not a known type"),
        ({"type": "null"}, "is not a known type"),
        ({"type": ["string", "null"]}, "is not a known type"),
        ({"$ref": "#/x"}, r"\$ref: only types in \$defs"),
        (3, "is not a known type"),
        ({"type": "string", "format": "ipv7"}, "format: input should be 'date', 'date-time', "),
        ({"type": "string", "enum": ["a"], "format": "date"}, "remove format"),
        ({"type": "string", "pattern": "(?=a)b"}, "look-ahead"),
        ({"type": "string", "pattern": "("}, "unclosed group"),
        ({"type": "string", "pattern": "(a{1000}){1000}"}, "at most 2000 are allowed"),
        ({"type": "string", "pattern": r"\w{600}"}, "exceeds size limit"),
        ({"type": "string", "pattern": "a" * 201}, "at most 200 characters"),
        ({"const": 1, "type": "string"}, "a value is no string"),
        ({"const": 1.5}, "const"),
        ({"const": None}, "const"),
        ({"enum": [1, True], "type": "integer"}, "a value is no integer"),
        ({"type": "string", "minLength": 3, "maxLength": 2}, "lower bound is above"),
        ({"type": "string", "minLength": -1}, "minLength"),
        ({"type": "string", "minLength": 1_000_001}, "minLength"),
        ({"type": "string", "enum": []}, "enum"),
        ({"type": "string", "enum": ["a", "a"]}, "listed twice"),
        ({"type": "string", "enum": ["a"], "maxLength": 1}, "enum already lists"),
        ({"type": "string", "enum": ["\ud800"]}, "not valid Unicode"),
        ({"type": "string", "enum": ["\x00"]}, r"U\+0000"),
        ({"type": "integer", "minimum": 1.5}, "minimum"),
        ({"type": "integer", "minimum": True}, "minimum"),
        ({"type": "integer", "minimum": 2, "maximum": 1}, "lower bound is above"),
        ({"type": "integer", "exclusiveMinimum": 1, "exclusiveMaximum": 2}, "lower bound is above"),
        ({"type": "integer", "minimum": 1, "maximum": 4, "multipleOf": 5}, "no number lies within"),
        ({"type": "integer", "multipleOf": 0}, "multipleOf"),
        ({"type": "number", "minimum": float("inf")}, "minimum"),
        ({"type": "number", "minimum": 1, "exclusiveMaximum": 1}, "lower bound is above"),
        ({"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 5e-324}, "lower bound is above"),
        ({"type": "number", "exclusiveMinimum": 1.7976931348623157e308}, "no number lies within"),
        ({"enum": []}, "enum"),
        ({"enum": [1, 1]}, "listed twice"),
        ({"enum": [1.5]}, "enum"),
        ({"enum": [None]}, "enum"),
        ({"type": "array", "minItems": 1}, "minItems: is not a known field"),
        ({"type": "array", "items": {"type": "string"}, "minItems": 2, "maxItems": 1}, "lower bound is above"),
        ({"type": "object", "properties": {}}, "properties"),
        ({"type": "object", "properties": {"a\nb": {"type": "string"}}}, "properties"),
        ({"type": "object", "properties": {"": {"type": "string"}}}, "properties"),
        ({"type": "object", "properties": {"a": {"type": "string"}}, "required": ["b"]}, "'b' is not one of"),
        ({"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": True}, "additional"),
        ({"anyOf": [{"type": "string"}]}, "anyOf"),
        ({"anyOf": [{"type": "null"}, {"type": "null"}]}, "not a known type"),
        ({"anyOf": [{"type": "string"}, {"type": "null"}, {"type": "null"}]}, "null is listed twice"),
        ({"anyOf": [{"type": "string"}] * 33}, "anyOf"),
        ({"oneOf": [{"type": "string"}, {"type": "integer"}]}, "discriminator: is missing"),
        (told_apart({"const": "a"}, {"const": "a"}), "oneOf.1: 'kind' is that of another one"),
        (told_apart({"const": "a"}, {"type": "string"}), "oneOf.1: needs 'kind' as a required property"),
        (told_apart({"const": "a"}, {"const": "b"}, required=[]), "oneOf.0: needs 'kind' as a required property"),
        ({"type": "array", "prefixItems": [{}]}, "minItems: is missing"),
        ({"type": "array", "prefixItems": [{}], "minItems": 0, "maxItems": 1}, "minItems and maxItems must be 1"),
        ({"type": "array", "prefixItems": [], "minItems": 0, "maxItems": 0}, "prefixItems"),
        ({"type": "array", "items": {}, "uniqueItems": False}, "uniqueItems"),
    ],
    ids=repr,
)
def test_what_is_not_a_type_is_refused_with_its_reason(schema: Any, message: str) -> None:
    with pytest.raises(InvalidSignature, match=message):
        of_type(schema)


@pytest.mark.parametrize(
    ("schema", "inside", "outside"),
    [
        ({"type": "number", "minimum": 5, "exclusiveMinimum": 3, "maximum": 5}, 5, 4.9),
        ({"type": "number", "exclusiveMinimum": 0, "maximum": 1}, 1, 0),
        ({"type": "integer", "minimum": 2**70}, 2**71, 2**69),
        ({"type": "integer", "multipleOf": 4, "maximum": -1}, -4, 0),
        ({"anyOf": [{"type": "integer", "minimum": 3}, {"type": "null"}]}, None, 2),
        ({"anyOf": [{"type": "array", "items": {"type": "integer"}, "minItems": 2}, {"type": "null"}]}, [1, 2], [1]),
        ({"type": "string", "maxLength": 2}, "\N{GRINNING FACE}é", "\N{GRINNING FACE}e\N{COMBINING ACUTE ACCENT}"),
    ],
    ids=repr,
)
def test_bounds(schema: dict[str, Any], inside: Any, outside: Any) -> None:
    signature = of_type(schema)
    assert accepts(signature, {"x": inside})
    assert not accepts(signature, {"x": outside})


def nested(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(levels - 1):
        schema = {"type": "array", "items": schema}
    return schema


def test_depth_has_a_limit() -> None:
    assert depth(of_type(nested(MAX_DEPTH)).inputs[0].type) == MAX_DEPTH
    with pytest.raises(InvalidSignature, match="nest deeper"):
        of_type(nested(MAX_DEPTH + 1))


def test_depth_without_end_is_an_error_like_any_other() -> None:
    with pytest.raises(DspexError):
        of_type(nested(20_000))


@pytest.mark.parametrize(
    ("schema", "value", "message"),
    [
        ("int | str", [], "x: input should be number or string"),
        ("int | str", 1.5, "x: input should be a valid integer"),
        ("int | date | Decimal", "tomorrow", "x: fits none of the types for a string"),
        ("Union[int, str, None]", {}, "x: input should be number or string or null"),
        ("list[int | dict[str, bool]]", [1, {"a": 2}], "x.1.a: input should be a valid boolean"),
        ("tuple[int, str]", ["a", 1], "x.0: input should be a valid integer; x.1: input should be a valid string"),
        ("tuple[int, str]", [1, "a", 2], "x: tuple should have at most 2 items"),
        ("set[int]", [1, 2, 1.0], "x: items should be different from each other"),
        (told_apart({"const": "a"}, {"const": "b"}), {"n": 1}, "x: kind should be one of 'a', 'b'"),
        (told_apart({"const": "a"}, {"const": "b"}), {"kind": "b", "m": 1}, "x.m: is not a known field"),
    ],
)
def test_what_fits_none_of_several_types(schema: Any, value: Any, message: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        of_type(schema).validate_inputs({"x": value})
    assert caught.value.message.startswith(message)


def test_a_value_that_fits_none_is_one_error_and_not_one_for_each_type() -> None:
    objects = [{"type": "object", "properties": {f"p{n}": {}}, "required": [f"p{n}"]} for n in range(32)]
    signature = of_type({"type": "object", "additionalProperties": {"anyOf": objects}})
    with pytest.raises(InvalidInput, match="has 20000 problems, too many to name them"):
        signature.validate_inputs({"x": {str(number): {} for number in range(20_000)}})


def test_typed_results_are_sets_tuples_and_the_object_that_a_property_names() -> None:
    tagged = told_apart({"const": "a"}, {"const": "b"})
    signature = Signature.parse(
        {
            "inputs": [{"name": "q", "type": "str"}],
            "outputs": [
                {"name": "s", "type": "set[date]"},
                {"name": "t", "type": "tuple[int, date]"},
                {"name": "u", "type": "int | date | None"},
                {"name": "v", "type": tagged},
                {"name": "w", "type": "set[dict]"},
            ],
        }
    )
    given = {"s": ["2026-11-30"], "t": [1, "2026-11-30"], "u": "2026-11-30", "v": {"kind": "b", "n": [1]}, "w": [{}]}
    assert signature.validate_outputs(given) == given
    made: Any = signature.output_model.model_validate(given)
    day = date(2026, 11, 30)
    assert (made.s, made.t, made.u, made.v.n, made.w) == ({day}, (1, day), day, [1], [{}])


@pytest.mark.filterwarnings("error")
def test_what_was_read_of_a_union_is_written_without_a_warning_that_quotes_it() -> None:
    an_object = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    pair = {"type": "array", "prefixItems": [{}, {}], "minItems": 2, "maxItems": 2}
    signature = of_type({"anyOf": [an_object, pair, {"type": "integer"}]})
    for value in ({"n": 1}, [1, "a"], 3):
        assert signature.validate_inputs({"x": value}) == {"x": value}

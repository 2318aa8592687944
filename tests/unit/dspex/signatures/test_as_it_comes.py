"""JSON Schemas as others write them: what is taken, what is lost and named, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from dspex.errors import InvalidSignature
from dspex.signatures import as_it_comes as module
from dspex.signatures.as_it_comes import MAX_LOSSES, as_it_comes
from dspex.signatures.signature import Signature
from dspex.signatures.types import DIALECT
from tests import strategies
from tests.sizes import TORTURE, sized

Schema = dict[str, Any]

TEXT: Schema = {"type": "string"}
NULL: Schema = {"type": "null"}
A: Schema = {"title": "A", "type": "object", "properties": {"a": TEXT}}
B: Schema = {"title": "B", "type": "object", "properties": {"b": {"type": "integer"}}, "required": ["b"]}


def of(schema: Any, **definitions: Any) -> Schema:
    """A signature with a field of this type."""
    return {
        "inputs": [{"name": "text", "type": "str"}],
        "outputs": [{"name": "x", "type": schema} | ({"$defs": definitions} if definitions else {})],
    }


def read(schema: Any, **definitions: Any) -> tuple[Schema, tuple[str, ...]]:
    """The type as it is kept, and what is lost."""
    found = Signature.given(of(schema, **definitions))
    kept: Schema = found.model_dump(mode="json")["outputs"][0]["type"]
    return shorter(kept), found.warnings


def shorter(kept: Any) -> Any:
    """Without what an object has for want of others."""
    if isinstance(kept, list):
        return [shorter(one) for one in kept]
    if not isinstance(kept, dict):
        return kept
    return {
        word: shorter(value)
        for word, value in kept.items()
        if (word, value) not in (("required", []), ("additionalProperties", False))
    }


def obj(**properties: Schema) -> Schema:
    return {"type": "object", "properties": properties}


@pytest.mark.parametrize(
    ("schema", "kept"),
    [
        ({"type": ["string", "null"], "minLength": 1}, {"anyOf": [TEXT | {"minLength": 1}, NULL]}),
        ({"type": ["null", "string"]}, {"anyOf": [NULL, TEXT]}),
        ({"type": ["integer", "string"], "minLength": 2}, {"anyOf": [{"type": "integer"}, TEXT | {"minLength": 2}]}),
        ({"type": ["string"]}, TEXT),
        (TEXT | {"nullable": True, "description": "d"}, {"description": "d", "anyOf": [TEXT, NULL]}),
        ({"enum": ["a", None]}, {"anyOf": [{"enum": ["a"]}, NULL]}),
        ({"enum": ["a"], "type": ["string", "null"]}, {"enum": ["a"]}),
        ({"enum": [1.0, 2, 2]}, {"enum": [1, 2]}),
        ({"const": "a", "enum": ["a", "b"], "type": "string"}, {"enum": ["a"], "type": "string"}),
        ({"anyOf": [TEXT]}, TEXT),
        ({"anyOf": [TEXT, NULL, {"const": None}]}, {"anyOf": [TEXT, NULL]}),
        (TEXT | {"anyOf": [TEXT | {"minLength": 1}, NULL]}, TEXT | {"minLength": 1}),
        ({"oneOf": [TEXT, {"type": "integer"}]}, {"anyOf": [TEXT, {"type": "integer"}]}),
        ({"allOf": [TEXT | {"minLength": 2}, {"minLength": 1, "maxLength": 9}]},
         TEXT | {"minLength": 2, "maxLength": 9}),
        ({"type": "integer", "minimum": 0.5, "exclusiveMaximum": 9.0},
         {"type": "integer", "minimum": 1, "exclusiveMaximum": 9}),
        ({"type": "integer", "minimum": 3, "exclusiveMinimum": True}, {"type": "integer", "exclusiveMinimum": 3}),
        ({"type": "integer", "exclusiveMinimum": 0.0, "multipleOf": 0.5}, {"type": "integer", "exclusiveMinimum": 0}),
        ({"type": "array", "minItems": 1}, {"type": "array", "items": {}, "minItems": 1}),
        ({"type": "array", "items": TEXT, "uniqueItems": False}, {"type": "array", "items": TEXT}),
        ({"type": "array", "items": [TEXT, TEXT], "minItems": 2, "additionalItems": False},
         {"type": "array", "prefixItems": [TEXT, TEXT], "minItems": 2, "maxItems": 2}),
        ({"type": "object", "properties": {"a": TEXT}, "required": ["a", "c", "a"]},
         obj(a=TEXT, c={}) | {"required": ["a", "c"]}),
        ({"type": "object", "properties": {}}, {"type": "object"}),
        (TEXT | {"$schema": DIALECT, "$comment": "c"}, TEXT),
        (True, {}),
    ],
)  # fmt: skip
def test_what_our_types_say_in_other_words_is_taken_whole(schema: Any, kept: Schema) -> None:
    inside, lost = read(obj(member=schema) | {"$schema": DIALECT, "$id": "https://a.example/b"})
    assert (inside["properties"]["member"], lost) == (kept, ())


@pytest.mark.parametrize(
    ("schema", "kept", "lost"),
    [
        (TEXT | {"format": "hostname"}, TEXT, "format 'hostname' is not checked"),
        (TEXT | {"pattern": "(?=a)b"}, TEXT, "pattern is not checked: is not a pattern that can be checked"),
        (TEXT | {"contentEncoding": "base64"}, TEXT, "contentEncoding is not checked"),
        (TEXT | {"contentMediaType": "application/json"}, TEXT, "contentMediaType is not checked"),
        (TEXT | {"deprecated": True}, TEXT, "deprecated is not kept"),
        (TEXT | {"readOnly": True}, TEXT, "readOnly is not kept"),
        (TEXT | {"x-order": 1}, TEXT, "x-order is not kept"),
        (TEXT | {"minLenght": 1}, TEXT, "minLenght is not checked"),
        (TEXT | {"maxLength": 2_000_000}, TEXT, "maxLength is not checked"),
        (TEXT | {"not": {"const": ""}}, TEXT, "not is not checked"),
        ({"type": "number", "multipleOf": 0.1}, {"type": "number"}, "multipleOf is not checked"),
        ({"enum": [0.5, 1]}, {"type": "number"}, "enum is not checked"),
        ({"enum": [{"a": 1}]}, {}, "enum is not checked"),
        (NULL, {}, "null alone is no type of ours: any value is taken"),
        ({"minLength": 3}, {}, "minLength is not checked"),
        ({"type": "object", "minProperties": 1}, {"type": "object"}, "minProperties is not checked"),
        ({"type": "object", "propertyNames": {"pattern": "^a"}}, {"type": "object"}, "propertyNames is not checked"),
        ({"type": "object", "required": ["a"]}, {"type": "object"}, "required is not checked"),
        (
            {"type": "object", "patternProperties": {"^a": TEXT}},
            {"type": "object", "additionalProperties": TEXT},
            "patternProperties is not checked: the value of any key is of its type",
        ),
        (
            obj(a=TEXT) | {"additionalProperties": True},
            obj(a=TEXT),
            "additionalProperties is not kept: keys that are no properties are refused",
        ),
        (
            obj(a=TEXT) | {"additionalProperties": TEXT},
            obj(a=TEXT),
            "additionalProperties is not kept: keys that are no properties are refused",
        ),
        (obj(a=TEXT) | {"dependentRequired": {"a": []}}, obj(a=TEXT), "dependentRequired is not checked"),
        (obj(a=TEXT) | {"anyOf": [{"required": ["a"]}, {}]}, obj(a=TEXT), "anyOf is not checked"),
        (obj(a=TEXT) | {"then": {"required": ["a"]}}, obj(a=TEXT), "then is not checked"),
        ({"properties": {"a": TEXT}}, obj(a=TEXT), "type is missing: it is taken as object"),
        ({"type": "array", "contains": TEXT}, {"type": "array"}, "contains is not checked"),
        (
            {"type": "array", "prefixItems": [TEXT]},
            {"type": "array", "items": {}},
            "prefixItems is not checked, as there may be fewer or more items",
        ),
        (
            {"oneOf": [TEXT, TEXT | {"minLength": 1}]},
            {"anyOf": [TEXT, TEXT | {"minLength": 1}]},
            "oneOf is read as anyOf: a value may fit several of them",
        ),
        ({"allOf": [TEXT | {"pattern": "a"}, {"pattern": "b"}]}, TEXT | {"pattern": "a"}, "pattern is not checked"),
    ],
)  # fmt: skip
def test_what_is_lost_is_named_by_its_path_and_word(schema: Schema, kept: Schema, lost: str) -> None:
    found, said = read(obj(member={"type": "array", "items": schema}))
    inside = found["properties"]["member"]["items"]
    assert inside == kept
    assert [one[: len(f"x.member[]: {lost}")] for one in said] == [f"x.member[]: {lost}"]
    with pytest.raises(InvalidSignature) as refused:
        Signature.given(of(obj(member={"type": "array", "items": schema}))).check_whole()
    assert [problem.field for problem in refused.value.problems] == ["x.member[]"]


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        (False, "x.m: no value fits its schema"),
        ({"not": {}}, "x.m: no value fits its schema"),
        ({"enum": []}, "x.m: no value fits its schema"),
        ({"enum": ["a"], "type": "integer"}, "x.m: no value fits its schema"),
        ({"const": "a", "enum": ["b"]}, "x.m: no value fits its schema"),
        ({"allOf": [TEXT, {"type": "integer"}]}, "x.m: no value fits its schema"),
        ({"allOf": [{"const": "a"}, {"const": "b"}]}, "x.m: no value fits its schema"),
        (TEXT | {"anyOf": [{"type": "integer"}, NULL]}, "x.m: no value fits its schema"),
        ({"allOf": []}, "x.m: allOf needs a list of schemas"),
        (TEXT | {"contentMediaType": "image/png"}, "x.m: contentMediaType: it is image/png, and the LM"),
        (obj(a=TEXT) | {"then": {"properties": {"b": TEXT}}}, "x.m: then may add 'b' to the object"),
        (
            obj(a=TEXT) | {"allOf": [{"then": {"required": ["a"]}}, {"then": {"properties": {"c": TEXT}}}]},
            "x.m: then may add 'c' to the object",
        ),
        (obj(a=TEXT) | {"dependentSchemas": {"a": {"properties": {"b": TEXT}}}}, "x.m: dependentSchemas may add 'b'"),
        (obj(a=TEXT) | {"anyOf": [{"$ref": "#/$defs/A"}]}, "x.m: anyOf may add '#/$defs/A'"),
        ({"allOf": [{"$ref": "#/$defs/Gone"}, {}]}, "x.m: #/$defs/Gone is not there"),
        ({"allOf": [{"$ref": "#/$defs/Loop"}, {}]}, "x.m: allOf refers to Loop, which refers to itself"),
        ({"$ref": "file:///etc/passwd"}, "only types in $defs of the same field"),
        ({"allOf": [{"$ref": "https://example.org/a.json"}]}, "only types in $defs of the same field"),
        ({"type": "integer", "minimum": 5, "maximum": 3}, "the lower bound is above the upper bound"),
        ({"type": "decimal"}, "is not a known type"),
    ],
)
def test_what_would_mean_something_else_is_refused_by_name(schema: Any, said: str) -> None:
    with pytest.raises(InvalidSignature) as refused:
        Signature.given(of(obj(m=schema), A=A, Loop={"allOf": [{"$ref": "#/$defs/Loop"}, {}]}))
    assert said in refused.value.message


def test_references_with_words_beside_them() -> None:
    wrapped = {"allOf": [{"$ref": "#/definitions/A"}], "description": "the first", "default": None}
    found = Signature.given(of(obj(first=wrapped) | {"definitions": {"A": A, "Unused": {"type": "nothing"}}}))
    (field,) = found.model_dump(mode="json")["outputs"]
    assert field["type"]["properties"]["first"] == {"$ref": "#/$defs/A", "description": "the first"}
    assert field["$defs"].keys() == {"A"}
    assert found.lost == ()
    ref = {"$ref": "#/$defs/A", "minProperties": 1, "type": "object", "nullable": True}
    kept, lost = read(obj(first=ref), A=A)
    assert kept["properties"]["first"] == {"anyOf": [{"$ref": "#/$defs/A"}, NULL]}
    assert lost == ("x.first: minProperties is not checked",)


def test_an_object_that_is_made_of_others() -> None:
    whole = {"allOf": [{"$ref": "#/$defs/A"}, {"$ref": "#/$defs/B"}, obj(a={"maxLength": 3})], "title": "Both"}
    kept, lost = read(whole, A=A, B=B)
    assert kept == {
        "title": "Both",
        "type": "object",
        "properties": {"a": TEXT | {"maxLength": 3}, "b": {"type": "integer"}},
        "required": ["b"],
    }
    assert lost == ()


def test_a_discriminator_that_tells_nothing_apart() -> None:
    def pet(kind: str, *required: str) -> Schema:
        return {"title": kind, **obj(kind={"const": kind, "type": "string"}), "required": list(required)}

    union = {"oneOf": [{"$ref": "#/$defs/cat"}, {"$ref": "#/$defs/dog"}], "discriminator": {"propertyName": "kind"}}
    kept, lost = read(union, cat=pet("cat", "kind"), dog=pet("dog", "kind"))
    assert (kept, lost) == (union, ())
    kept, lost = read(union, cat=pet("cat"), dog=pet("dog", "kind"))
    assert kept == {"anyOf": union["oneOf"]}
    assert [one.split(" ")[1] for one in lost] == ["discriminator", "oneOf"]


class Line(BaseModel):
    """One of them."""

    sku: str = Field(examples=["AB"], deprecated=True)
    count: int = Field(gt=0, description="how many")
    parts: list[Line] = []


def test_what_pydantic_says_of_a_model() -> None:
    kept = Signature.given(of(Line.model_json_schema()))
    assert kept.warnings == ("x.$defs.Line.sku: deprecated is not kept",)
    assert kept.validate_outputs({"x": {"sku": "AB", "count": 2, "parts": [{"sku": "B", "count": 1}]}})
    again = Signature.parse(kept.model_dump(mode="json"))
    assert (again.digest, again.lost) == (kept.digest, ())


@settings(max_examples=60, deadline=None)
@given(strategies.signatures())
def test_our_own_form_stays_as_it_is(data: Schema) -> None:
    assert as_it_comes(data)[1] == ()
    assert Signature.given(data).digest == Signature.parse(data).digest
    written = Signature.parse(data).model_dump(mode="json")
    assert as_it_comes(written) == (written, ())


def test_strictly_and_among_our_own_only_the_strict_form_is_read() -> None:
    with pytest.raises(InvalidSignature):
        Signature.parse(of(TEXT | {"deprecated": True}))


# Hostile


def nested(depth: int) -> Iterator[Schema]:
    for word in ("allOf", "anyOf", "items", "properties", "not"):
        found: Any = TEXT
        for _ in range(depth):
            inside = {"p": found} if word == "properties" else found if word in ("items", "not") else [found]
            found = {word: inside}
        yield found


@pytest.mark.parametrize("depth", [70, 5_000])
def test_schemas_that_nest_deep_are_refused(depth: int) -> None:
    for schema in nested(depth):
        if depth == 70 and "not" in schema:
            continue  # it is not read, as it is lost
        with pytest.raises(InvalidSignature, match=r"nest deeper|has \d+ fields, types"):
            Signature.given(of(schema))


def test_references_that_double_each_time_cost_what_they_may() -> None:
    chain = {f"N{n}": {"allOf": [{"$ref": f"#/$defs/N{n + 1}"}, {"$ref": f"#/$defs/N{n + 1}"}]} for n in range(20)}
    with pytest.raises(InvalidSignature, match="its schema says more than 10000 schemas"):
        Signature.given(of({"allOf": [{"$ref": "#/$defs/N0"}, {}]}, **chain, N20=TEXT))


def test_all_fields_together_cost_what_one_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_SCHEMAS", 50)
    many = [{"name": f"f{number}", "type": {"type": "array", "items": TEXT}} for number in range(30)]
    with pytest.raises(InvalidSignature, match="f25: its schema says more than 50"):
        Signature.given({"inputs": many, "outputs": many[:1]})


def test_a_thousand_losses_are_counted() -> None:
    schema = obj(**{f"p{number}": TEXT | {"x-order": number} for number in range(250)})
    found = Signature.given(of(schema))
    assert len(found.lost) == MAX_LOSSES + 1
    assert found.warnings[-1] == "and 50 more words are lost"


def test_a_word_or_a_path_of_any_length_is_cut() -> None:
    found = Signature.given(of(TEXT | {"x" * 10_000: 1}))
    assert len(found.warnings[0]) < 200


WORDS = st.sampled_from(
    [
        *("type", "enum", "const", "anyOf", "oneOf", "allOf", "not", "if", "then", "$ref", "$defs", "nullable"),
        *("properties", "required", "items", "prefixItems", "additionalProperties", "patternProperties"),
        *("minimum", "exclusiveMinimum", "multipleOf", "minLength", "maxItems", "minItems", "uniqueItems", "pattern"),
        *("format", "title", "description", "default", "examples", "discriminator", "propertyName", "contentMediaType"),
    ]
)
NAMES = st.sampled_from(["string", "integer", "number", "null", "object", "array", "a", "#/$defs/a", "image/png", "("])
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats(allow_nan=False) | NAMES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(WORDS, inner, max_size=5)
        | st.dictionaries(NAMES, inner, max_size=2)
    ),
    max_leaves=25,
)


@settings(max_examples=sized(400, 20_000), deadline=None, derandomize=not TORTURE)
@given(st.dictionaries(WORDS, ANYTHING, max_size=6), st.dictionaries(NAMES, ANYTHING, max_size=2))
def test_whatever_is_given_is_read_or_refused(schema: Schema, definitions: Schema) -> None:
    try:
        found = Signature.given(of(schema, **definitions))
    except InvalidSignature:
        return
    assert Signature.parse(found.model_dump(mode="json")) == found

"""Signatures: what they may be, their schemas, their digest, and the values that fit them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from pydantic import ValidationError

from dspex import Signature
from dspex.errors import InvalidInput, InvalidOutput, InvalidSignature
from dspex.signatures.field import RESERVED_NAMES
from dspex.signatures.signature import MAX_FIELDS
from tests.strategies import signatures, values


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(signatures())
def test_a_signature_comes_back_from_json_with_its_digest(data: dict[str, Any]) -> None:
    signature = Signature.parse(data)
    again = Signature.parse(json.loads(signature.model_dump_json()))
    assert again == signature
    assert again.digest == signature.digest


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_values_that_fit_pass_both_validators_unchanged(data: st.DataObject) -> None:
    signature = Signature.parse(data.draw(signatures()))
    schemas = {field.name: field.json_schema() for field in signature.outputs}
    outputs = {name: data.draw(values(schema)) for name, schema in schemas.items()}
    Draft202012Validator(signature.output_schema()).validate(outputs)
    assert signature.validate_outputs(outputs) == outputs


def test_one_schema_has_both_inputs_and_outputs() -> None:
    signature = Signature.parse({"name": "qa", "instructions": "Answer.", "arrow": "q, k: int = 3 -> a: list[str]"})
    schema = signature.json_schema()
    Draft202012Validator.check_schema(schema)
    assert (schema["title"], schema["description"]) == ("qa", "Answer.")
    row = Draft202012Validator(schema)
    assert row.is_valid({"inputs": {"q": "why"}, "outputs": {"a": ["because"]}})
    assert not row.is_valid({"inputs": {"q": "why"}})
    assert not row.is_valid({"inputs": {"k": 3}, "outputs": {"a": []}})
    assert not row.is_valid({"inputs": {"q": "why"}, "outputs": {"a": [1]}})
    assert signature.input_schema()["$schema"] == schema["$schema"]


def test_name_and_version_are_not_in_the_digest_and_all_else_is() -> None:
    base = Signature.parse("question, k: int = 3 -> answer")
    same = Signature.parse({"arrow": "question, k: int = 3 -> answer", "name": "other", "version": "2.0.0"})
    assert same.digest == base.digest
    others: list[str | dict[str, Any]] = [
        "question, k: int = 4 -> answer",
        "question, k: int -> answer",
        "question, k: float = 3 -> answer",
        "k: int = 3, question -> answer",
        "question, k: int = 3 -> reply",
        {"arrow": "question, k: int = 3 -> answer", "instructions": "Briefly."},
    ]
    digests = {Signature.parse(other).digest for other in others}
    assert len(digests) == len(others)
    assert base.digest not in digests


def test_the_arrow_form_and_data_give_the_same_signature() -> None:
    as_data = {
        "inputs": [{"name": "question", "type": {"type": "string"}}, {"name": "k", "type": "int", "default": 3}],
        "outputs": [{"name": "answer", "type": "list[str]"}, {"name": "score", "type": "number"}],
    }
    assert Signature.parse(as_data) == Signature.parse("question, k: int = 3 -> answer: list[str], score: float")


def test_defaults_fill_in_what_is_left_out_and_are_of_the_type() -> None:
    signature = Signature.parse("q, k: int = 3, w: float = 2, o: Optional[int], tags: list[str] = ['a'] -> a")
    filled = signature.validate_inputs({"q": "x"})
    assert filled == {"q": "x", "k": 3, "w": 2.0, "o": None, "tags": ["a"]}
    assert isinstance(filled["w"], float)
    assert signature.validate_inputs({"q": "x", "k": 5, "o": 1, "w": 0.5, "tags": []})["k"] == 5


def test_a_default_is_not_shared_between_inputs() -> None:
    signature = Signature.parse("q, tags: list[str] = ['a'] -> a")
    signature.validate_inputs({"q": "x"})["tags"].append("b")
    assert signature.validate_inputs({"q": "x"})["tags"] == ["a"]


def test_every_wrong_field_is_named() -> None:
    signature = Signature.parse("q, k: int, tags: list[int], o: dict[str, int] -> a")
    with pytest.raises(InvalidInput) as caught:
        signature.validate_inputs({"k": "3", "tags": [1, "x"], "o": {"a": None}, "more": 1})
    assert {problem.field for problem in caught.value.problems} == {"q", "k", "tags.1", "o.a", "more"}


def test_a_problem_never_quotes_the_value() -> None:
    signature = Signature.parse(
        {
            "inputs": [{"name": "q", "type": {"type": "string", "maxLength": 3}}],
            "outputs": [{"name": "a", "type": "str"}],
        }
    )
    with pytest.raises(InvalidInput) as caught:
        signature.validate_inputs({"q": "a-secret-text"})
    assert "secret" not in str(caught.value)


def test_outputs_have_an_error_of_their_own_and_a_null_where_they_may() -> None:
    signature = Signature.parse("q -> a: int, o: Optional[int]")
    assert signature.validate_outputs({"a": 1, "o": None}) == {"a": 1, "o": None}
    with pytest.raises(InvalidOutput, match="a: "):
        signature.validate_outputs({"a": None})


@pytest.mark.parametrize("side", ["inputs", "outputs"])
@pytest.mark.parametrize("name", sorted(RESERVED_NAMES))
def test_reserved_names_are_refused(name: str, side: str) -> None:
    data = {"inputs": [{"name": "a", "type": "str"}], "outputs": [{"name": "b", "type": "str"}]}
    data[side] = [{"name": name, "type": "str"}]
    with pytest.raises(InvalidSignature, match=f"{side}.0.name: '{name}' is a reserved name"):
        Signature.parse(data)


ORDINARY = "class from import lambda None True print id type input output name copy json schema dict values model_name"


@pytest.mark.parametrize("name", ORDINARY.split())
@pytest.mark.filterwarnings("error")
def test_ordinary_names_are_fields(name: str) -> None:
    signature = Signature.parse({"inputs": [{"name": name, "type": "int"}], "outputs": [{"name": "b", "type": "str"}]})
    assert signature.validate_inputs({name: 1}) == {name: 1}
    with pytest.raises(InvalidInput, match=f"{name}: is missing"):
        signature.validate_inputs({})


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({}, "inputs: is missing"),
        ({"inputs": [], "outputs": []}, "inputs"),
        ({"arrow": "a -> b", "inputs": []}, "give either 'arrow'"),
        ({"arrow": 3}, "give either 'arrow'"),
        ({"arrow": "a -> b", "nonsense": 1}, "nonsense: is not a known field"),
        ({"arrow": "a -> b", "version": "1"}, "version"),
        ({"arrow": "a -> b", "version": "01.0.0"}, "version"),
        ({"arrow": "a -> b", "module": "a/b"}, "module"),
        ({"arrow": "a -> b", "instructions": "a\x00b"}, r"U\+0000"),
        ({"arrow": "a -> b", "instructions": "\ud800"}, "instructions"),
        ({"arrow": "a -> b", "instructions": "x" * 20_001}, "instructions"),
        ({"inputs": [{"name": "a b", "type": "str"}], "outputs": [{"name": "b", "type": "str"}]}, "inputs.0.name"),
        ({"inputs": [{"name": "a\n", "type": "str"}], "outputs": [{"name": "b", "type": "str"}]}, "inputs.0.name"),
        (
            {"inputs": [{"name": "a", "type": "Foo"}], "outputs": [{"name": "b", "type": "str"}]},
            "inputs.0.type: unknown",
        ),
        ({"inputs": [{"name": "a"}], "outputs": [{"name": "b", "type": "str"}]}, "inputs.0.type: is missing"),
        (
            {"inputs": [{"name": "a", "type": "int", "default": "\x00"}], "outputs": [{"name": "b", "type": "str"}]},
            "the default of a",
        ),
        (
            {"inputs": [{"name": "a", "type": "str"}], "outputs": [{"name": "b", "type": "str", "default": None}]},
            "output 'b' has a default",
        ),
        (["a"], "input should be"),
        (None, "input should be"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_what_is_no_signature_is_refused(data: Any, message: str) -> None:
    with pytest.raises(InvalidSignature, match=message):
        Signature.parse(data)


def test_the_number_of_fields_has_a_limit() -> None:
    inputs = ", ".join(f"f{number}" for number in range(MAX_FIELDS))
    Signature.parse(f"{inputs} -> a")
    with pytest.raises(InvalidSignature, match="inputs"):
        Signature.parse(f"{inputs}, more -> a")


def test_a_signature_is_frozen() -> None:
    signature = Signature.parse("a -> b")
    with pytest.raises(ValidationError):
        signature.name = "other"  # type: ignore[misc]


def test_schemas_say_what_may_be_left_out() -> None:
    signature = Signature.parse("q, k: int = 3, o: Optional[int] -> a, b: Optional[str]")
    assert signature.input_schema()["required"] == ["q"]
    assert signature.input_schema()["properties"]["k"] == {"type": "integer", "default": 3}
    assert signature.output_schema()["required"] == ["a"]
    assert signature.input_schema()["additionalProperties"] is False


def test_signatures_with_the_same_outputs_have_one_model_of_them_and_others_their_own() -> None:
    one, same = (Signature.parse({"name": name, "arrow": "q: str -> a: int, b: float"}) for name in ("one", "same"))
    other, more = Signature.parse("q: str -> a: int, b: int"), Signature.parse("q: str -> a: int")
    assert one.output_model is same.output_model
    assert len({model.output_model for model in (one, other, more)}) == 3


@pytest.mark.parametrize(("left_out", "given"), [("q: int = 1 -> a", 1), ("q: float = 1.0 -> a", 1.0)])
def test_defaults_that_python_holds_for_equal_stay_what_they_are(left_out: str, given: float) -> None:
    filled = Signature.parse(left_out).validate_inputs({})["q"]
    assert (type(filled), filled) == (type(given), given)

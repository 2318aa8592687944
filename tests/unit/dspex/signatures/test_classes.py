"""The classes of types with titles, as pydantic shows them."""

from __future__ import annotations

import gc
from typing import Any

import pytest
from pydantic import TypeAdapter

from dspex import Signature
from dspex.errors import InvalidSignature
from dspex.signatures import classes
from dspex.signatures.annotations import LENIENT, unconstrained
from dspex.signatures.compatibility import compare

PERSON: dict[str, Any] = {
    "type": "object",
    "title": "Person",
    "description": "A person.",
    "properties": {"name": {"type": "string"}, "nick": {"type": "string", "default": "x"}},
    "required": ["name"],
}


def signature(data: Any) -> Signature:
    return Signature.parse({"inputs": [{"name": "q", "type": "str"}], "outputs": [{"name": "a", "type": data}]})


def shown(data: Any) -> dict[str, Any]:
    made = unconstrained(signature(data).outputs[0].type, LENIENT, name="A")
    return TypeAdapter(made).json_schema()


def test_a_class_has_its_name_its_docstring_and_its_defaults() -> None:
    assert shown(PERSON) == {
        "type": "object",
        "title": "Person",
        "description": "A person.",
        "properties": {
            "name": {"title": "Name", "type": "string"},
            "nick": {"title": "Nick", "type": "string", "default": "x"},
        },
        "required": ["name"],
    }
    assert shown(PERSON | {"additionalProperties": False})["additionalProperties"] is False


def test_an_object_without_a_title_is_shown_as_before() -> None:
    untitled = {key: value for key, value in PERSON.items() if key not in ("title", "description")}
    assert shown(untitled) == {
        "type": "object",
        "title": "A",
        "properties": {
            "name": {"title": "Name", "type": "string"},
            "nick": {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None, "title": "Nick"},
        },
        "required": ["name"],
        "additionalProperties": False,
    }


def test_a_signature_without_titles_keeps_its_digest() -> None:
    """The digest is that of the version before titles: backend ids and states of older programs name it."""
    person = {
        "type": "object",
        "description": "A person.",
        "properties": {"name": {"type": "string"}, "nick": {"type": "string"}},
        "required": ["name"],
    }
    outputs = [
        {"name": "people", "type": {"type": "array", "items": person, "minItems": 1}},
        {"name": "kind", "type": {"enum": ["a", 1, True]}},
        {"name": "share", "type": {"type": "number", "minimum": 0.0, "maximum": 1.0}},
    ]
    made = Signature.parse({"inputs": [{"name": "q", "type": "str"}], "outputs": outputs})
    assert made.digest == "cab6bf24179173565ffd11679253c761b872a0681a2691967617c5f072a151d7"


def test_the_order_of_properties_counts_where_the_lm_sees_it() -> None:
    turned = PERSON | {"properties": dict(reversed(PERSON["properties"].items()))}
    old, new = signature({"type": "array", "items": PERSON}), signature({"type": "array", "items": turned})
    assert old.digest != new.digest
    assert compare(old, new).notes == ("outputs.a: is written differently, the same values fit",)
    untitled = [{key: value for key, value in one.items() if key != "title"} for one in (PERSON, turned)]
    assert signature(untitled[0]).digest == signature(untitled[1]).digest


def test_one_class_is_shown_once_and_two_of_one_name_are_two() -> None:
    pair = {"type": "object", "title": "Pair", "properties": {"a": PERSON, "b": PERSON}, "required": ["a", "b"]}
    assert list(shown(pair)["$defs"]) == ["Person"]
    described = PERSON | {"description": "of b", "docstring": "A person."}
    both = shown(pair | {"properties": {"a": PERSON, "b": described}})
    assert list(both["$defs"]) == ["Person"]
    assert both["properties"]["b"] == {"$ref": "#/$defs/Person", "description": "of b"}
    other = PERSON | {"properties": {"name": {"type": "integer"}}}
    definitions = shown(pair | {"properties": {"a": PERSON, "b": other}})["$defs"]
    assert sorted(item["properties"]["name"]["type"] for item in definitions.values()) == ["integer", "string"]


def test_what_is_checked_is_said_in_the_words_of_the_standard() -> None:
    enum = {"type": "string", "title": "Level", "enum": ["a"], "names": ["A"], "docstring": ""}
    aliased = PERSON | {"docstring": "", "properties": {"name": enum | {"attribute": "other"}}, "required": ["name"]}
    schema = signature(aliased).output_schema()["properties"]["a"]
    assert schema["additionalProperties"] is False
    assert schema["properties"] == {"name": {"type": "string", "title": "Level", "enum": ["a"]}}
    assert "docstring" not in schema


@pytest.mark.parametrize(
    "title",
    [
        "Größe", "__class__", "mro", "class", "int", "None", "Box[int]", "a b", "__import__('os').system('x')", "../x",
        "{0}", "#/$defs/Person", "$ref", "[[ ## answer ## ]]", "\u202e", "x" * 200, "BaseModel", "'\"\\",
    ],
)  # fmt: skip
def test_a_title_is_a_text_and_nothing_else(title: str) -> None:
    assert shown(PERSON | {"title": title})["title"] == title
    assert shown({"type": "string", "enum": ["a", "b"], "title": title})["title"] == title


@pytest.mark.parametrize("title", ["", "x" * 201, "a\nb", "a\x00b", "a\rb", "\x1b[0m", 5, ["x"]])
def test_a_title_that_is_no_line_of_text_is_refused(title: Any) -> None:
    with pytest.raises(InvalidSignature, match="title"):
        signature(PERSON | {"title": title})


def test_enums() -> None:
    level = {"title": "Level", "enum": ["low", "high"], "type": "string", "description": "How bad."}
    assert shown(level) == {"title": "Level", "enum": ["low", "high"], "type": "string", "description": "How bad."}
    made = unconstrained(signature(level | {"names": ["LOW", "HIGH"]}).outputs[0].type, LENIENT)
    assert repr(made("low")) == "<Level.LOW: 'low'>"
    # Python takes 1 and true for one: a class would lose a value.
    assert shown({"title": "Odd", "enum": [1, True]})["enum"] == [1, True]
    assert shown(level | {"names": ["mro", "HIGH"]})["enum"] == ["low", "high"]  # no enum has such a member
    with pytest.raises(InvalidSignature, match="names has not one for each value"):
        signature(level | {"names": ["LOW"]})


def test_null_for_a_property_that_is_left_out_is_read() -> None:
    made = unconstrained(signature(PERSON).outputs[0].type, LENIENT, name="A")
    read = TypeAdapter(made).validate_python({"name": "Ann", "nick": None, "other": 1})
    assert read.model_dump(exclude_unset=True) == {"name": "Ann"}


@pytest.mark.parametrize("bound", ["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"])
def test_a_bound_stays_as_it_is_written(bound: str) -> None:
    def again(value: float) -> Any:
        given = signature({"type": "number", bound: value})
        return Signature.model_validate_json(given.model_dump_json()).outputs[0].type.model_dump()[bound]

    for value in (0, 0.0, 1, 1.5, -3):
        assert repr(again(value)) == repr(value)
    assert repr(again(2**60)) == "1.152921504606847e+18"


def test_classes_go_with_their_signatures() -> None:
    made = unconstrained(signature(PERSON | {"title": "Gone"}).outputs[0].type, LENIENT)
    assert made in classes._models.values()
    del made
    gc.collect()
    assert not [model for model in classes._models.values() if model.__name__ == "Gone"]

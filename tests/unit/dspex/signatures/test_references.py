"""Types that have names: what they refer to, those that contain themselves, and what either costs."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pydantic
import pytest
from hypothesis import HealthCheck, given, settings
from jsonschema import Draft202012Validator
from pydantic import TypeAdapter

from adapters.mock import values as mock
from adapters.mock.draws import Draws
from dspex import Signature
from dspex.errors import InvalidInput, InvalidSignature
from dspex.signatures import differences
from dspex.signatures.annotations import LENIENT, unconstrained
from dspex.signatures.compatibility import compare
from dspex.signatures.definitions import MAX_VALUE_DEPTH
from dspex.signatures.dspy_class import signature_of
from tests import notebook
from tests.sizes import sized
from tests.strategies import named_types
from workers.cli.inputs.cells import read_cell

Schema = dict[str, Any]
TEXT: Schema = {"type": "string"}


def ref(name: str) -> Schema:
    return {"$ref": f"#/$defs/{name}"}


def an_object(*required: str, **properties: Any) -> Schema:
    return {"type": "object", "properties": properties, "required": list(required)}


def listed(item: Schema) -> Schema:
    return {"type": "array", "items": item}


def either(*several: Schema) -> Schema:
    return {"anyOf": list(several)}


def optional(one: Schema) -> Schema:
    return {"anyOf": [one, {"type": "null"}]}


def of(schema: Schema, definitions: Schema) -> Signature:
    field = {"type": schema, "$defs": definitions}
    return Signature.parse({"inputs": [{"name": "x"} | field], "outputs": [{"name": "y"} | field]})


NODE = an_object("name", name=TEXT, children=listed(ref("Node")), next=optional(ref("Node")))
"""A type that contains itself in a list, and optionally."""


def test_a_definition_is_read_from_the_field_or_from_its_type_and_is_there_once() -> None:
    beside = of(listed(ref("Node")), {"Node": NODE, "Unused": TEXT})
    within = of(listed(ref("Node")) | {"$defs": {"Node": NODE}}, {})
    assert beside == within
    assert beside.digest == within.digest
    data = beside.model_dump(mode="json")
    assert data["inputs"][0]["$defs"] == {"Node": {"title": "Node"} | NODE}
    assert Signature.parse(json.loads(beside.model_dump_json())) == beside
    schema = beside.json_schema()
    assert list(schema["$defs"]) == ["Node"]
    Draft202012Validator.check_schema(schema)
    assert "$defs" not in Signature.parse("a -> b").model_dump(mode="json")["inputs"][0]


def test_two_fields_may_each_have_a_type_of_one_name() -> None:
    fields = [
        {"name": f"f{number}", "type": ref("A"), "$defs": {"A": an_object(**{f"p{number}": TEXT})}} for number in (1, 2)
    ]
    signature = Signature.parse({"inputs": fields, "outputs": [{"name": "y", "type": "str"}]})
    schema = signature.input_schema()
    assert [schema["properties"][name] for name in ("f1", "f2")] == [ref("A"), ref("A_2")]
    assert list(schema["$defs"]["A_2"]["properties"]) == ["p2"]


@pytest.mark.parametrize(
    "pointer",
    [
        "file:///etc/passwd", "other.json", "https://example.org/a.json#/$defs/A", "#", "#/properties/a",
        "#/$defs/a/b", "#/$defs/%41", "#/$defs/", "#/definitions/A", "A",
    ],
)  # fmt: skip
def test_nothing_but_a_definition_of_the_field_is_referred_to(pointer: str) -> None:
    with pytest.raises(InvalidSignature, match=r"inputs\.0\.type\.items\.\$ref: only types in \$defs of"):
        of(listed({"$ref": pointer}), {"A": TEXT})


@pytest.mark.parametrize(
    ("schema", "definitions", "message"),
    [
        (ref("A"), {"B": TEXT}, r"inputs\.0: #/\$defs/A is not there"),
        (ref("A"), {"A": ref("B")}, r"inputs\.0: #/\$defs/B is not there"),
        (ref("A"), {"A": {"type": "text"}}, r"inputs\.0\.\$defs\.A: is not a known type"),
        (ref("A"), {'a"b\n': TEXT, "A": TEXT}, "string should match pattern"),
        (ref("A"), {"A": ref("A")}, r"\$defs\.A refers to itself without an object"),
        (ref("A"), {"A": listed(ref("B")), "B": optional(ref("A"))}, "refers to itself without an object"),
        (ref("A"), {"A": an_object("a", a=ref("A"))}, r"\$defs\.A has no value that ends"),
        (ref("A"), {"A": an_object("b", b=ref("B")), "B": listed(ref("A")) | {"minItems": 1}}, "has no value"),
        (ref("A"), {"A": {"anyOf": [ref("A"), TEXT]}}, "refers to itself without an object"),
        (ref("D0"), {f"D{n}": ref(f"D{n + 1}") for n in range(900)} | {"D900": TEXT}, "types nest 902 deep"),
        (ref("D0"), {f"D{n}": an_object(a=ref(f"D{(n + 1) % 40}")) for n in range(40)}, "at most 64 are allowed"),
        (ref("D0"), {f"D{n}": an_object(a=TEXT) for n in range(2_000)}, "has 8002 fields, types"),
        (TEXT | {"$defs": {"A": TEXT}}, {"A": TEXT}, "given twice"),
        ({"oneOf": [ref("A"), ref("B")], "discriminator": {"propertyName": "k"}}, {"A": TEXT, "B": TEXT}, "no object"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_refused(schema: Schema, definitions: Schema, message: str) -> None:
    with pytest.raises(InvalidSignature, match=message):
        of(schema, definitions)


def tree(depth: int) -> Schema:
    value: Schema = {"name": "leaf"}
    for _ in range(depth):
        value = {"name": "a", "next": value}
    return value


def test_values_of_a_type_that_contains_itself() -> None:
    signature = of(ref("Node"), {"Node": NODE})
    value = {"name": "a", "children": [{"name": "b", "next": None}, tree(3)]}
    assert signature.validate_inputs({"x": value}) == {"x": value}
    with pytest.raises(InvalidInput, match=r"^x\.children\.1\.next\.name: input should be a valid string$"):
        signature.validate_inputs({"x": {"name": "a", "children": [{"name": "b"}, {"name": "c", "next": {"name": 1}}]}})
    made: Any = signature.output_model.model_validate({"y": value})
    assert made.y.children[1].next.model_dump(exclude_unset=True) == tree(2)
    assert read_cell(signature.inputs[0].type, '{"name": "a"}') == {"name": "a"}
    assert read_cell(of(ref("Count"), {"Count": {"type": "integer"}}).inputs[0].type, " 3 ") == 3


def test_types_of_one_name_in_two_signatures_are_two() -> None:
    for name in ("a", "b", "a b", "copy"):
        signature = of(ref("Node"), {"Node": an_object(**{name: ref("Node")})})
        value: Schema = {name: {name: {name: {}}}}
        assert signature.validate_inputs({"x": value}) == {"x": value}
        assert signature.output_model.model_validate({"y": value}).model_dump(by_alias=True, exclude_unset=True)["y"]
        shown = TypeAdapter(unconstrained(signature.outputs[0].type, LENIENT)).json_schema()
        assert list(shown["$defs"]["Node"]["properties"]) == [name]


def test_how_deep_a_value_is() -> None:
    signature = of(ref("Node"), {"Node": NODE})
    signature.validate_inputs({"x": tree(MAX_VALUE_DEPTH - 1)})
    for depth in (MAX_VALUE_DEPTH, 10_000):
        with pytest.raises(InvalidInput, match=r"^x: nests deeper than 100$"):
            signature.validate_inputs({"x": tree(depth)})


def test_names_are_those_of_the_classes_and_titles_come_first() -> None:
    definitions = {"Node": NODE, "acme__Mood": {"title": "Mood", "type": "string", "enum": ["a", "b"]}}
    both = an_object(n=ref("Node"), m=ref("acme__Mood")) | {"title": "Both"}
    shown = TypeAdapter(unconstrained(of(both, definitions).outputs[0].type, LENIENT)).json_schema()
    assert sorted(shown["$defs"]) == ["Mood", "Node"]
    assert shown["$defs"]["Node"]["title"] == "Node"


# One of a chain refers twice to the next: written out, they would be 2 ** 30.
CHAIN = {f"D{n}": an_object(a=ref(f"D{n + 1}"), b=ref(f"D{n + 1}")) for n in range(29)} | {"D29": an_object(a=TEXT)}
TUPLES = {"D0": an_object(x=ref("T0"), y=ref("T0"))} | {
    f"T{n}": {"type": "array", "prefixItems": [ref(f"T{n + 1}")] * 2, "minItems": 2, "maxItems": 2} for n in range(18)
}
TUPLES["T18"] = listed(ref("D0"))
COMPLETE = {f"D{n}": an_object(**{f"x{m}": ref(f"D{m}") for m in range(20)}) for n in range(20)}
UNIONS = {f"D{n}": an_object(a={"anyOf": [ref(f"D{m}") for m in range(15)]}) for n in range(15)}


@pytest.mark.parametrize(
    ("definitions", "objects"),
    [(CHAIN, 30), (TUPLES, 1), (COMPLETE, 20), (UNIONS, 15)],
    ids=["chain", "tuples", "complete", "unions"],
)
def test_each_definition_is_looked_at_once(definitions: Schema, objects: int, monkeypatch: pytest.MonkeyPatch) -> None:
    work: Counter[str] = Counter()

    def counted(where: Any, name: str) -> None:
        real = getattr(where, name)

        def count(*given: Any, **named: Any) -> Any:
            work[name] += 1
            return real(*given, **named)

        monkeypatch.setattr(where, name, count)

    signature, other = of(ref("D0"), definitions), of(ref("D0"), definitions)
    counted(pydantic, "create_model")
    counted(mock, "_object")
    counted(differences.Comparison, "_bare")
    assert signature.validate_inputs({"x": {}}) == {"x": {}}
    TypeAdapter(unconstrained(signature.outputs[0].type, LENIENT)).json_schema()
    assert work["create_model"] == 2 * objects + 1  # the fields are one, too
    signature.validate_outputs({"y": mock.maker(signature.outputs[0].type, "y")(Draws("any"))})
    assert work["_object"] == objects
    assert compare(signature, other).changes == ()
    assert work["_bare"] <= 2 * (len(definitions) ** 2 + 20)


def test_a_change_is_told_of_each_field_that_has_the_type() -> None:
    changed = NODE | {"properties": NODE["properties"] | {"name": {"type": "integer"}}}
    fields = [{"name": name, "type": schema} for name, schema in (("a", ref("Node")), ("b", listed(ref("Node"))))]
    outputs = [{"name": "y", "type": "str"}]
    old, new = (
        Signature.parse({"inputs": [one | {"$defs": {"Node": node}} for one in fields], "outputs": outputs})
        for node in (NODE, changed)
    )
    assert [change.field for change in compare(old, new).breaking] == ["a.name", "b[].name"]
    described = NODE | {"description": "A part."}
    notes = compare(of(ref("Node"), {"Node": NODE}), of(ref("Node"), {"Node": described})).notes
    assert notes == ("inputs.x: the description changed", "outputs.y: the description changed")


@pytest.mark.parametrize(
    ("before", "after", "compatible"),
    [
        (an_object(a=ref("A")), an_object(a=optional(ref("A"))), [True, False]),
        (an_object(a=ref("A"), n={"type": "integer"}), an_object(a=ref("A"), n={"type": "number"}), [True, False]),
        (an_object(a=either(ref("A"), TEXT)), an_object(a=either(ref("A"), TEXT, {"enum": [1]})), [True, False]),
        (an_object(a=listed(ref("A"))), an_object(a={}), [True, False]),
        (an_object(a=ref("A")), an_object(a=an_object(a=an_object(a=ref("A")))), []),
    ],
    ids=repr,
)  # fmt: skip
def test_types_that_contain_themselves_are_compared(before: Schema, after: Schema, compatible: list[bool]) -> None:
    changes = compare(of(ref("A"), {"A": before}), of(ref("A"), {"A": after})).changes
    assert [change.compatible for change in changes] == compatible


def test_a_class_that_contains_itself_is_data_and_others_are_written_where_they_stand() -> None:
    signature = signature_of(notebook.Outline, name="outline")
    root, home = signature.outputs[0], signature.outputs[-1]
    assert (root.type.model_dump(), list(root.defs or {})) == (ref("Node"), ["Node", "Note"])
    assert home.defs is None
    nodes = {json.dumps(field.model_dump(mode="json")["$defs"]) for field in signature.outputs[:4]}
    assert len(nodes) == 1


DEEP = 20


def test_classes_that_would_be_too_many_have_names() -> None:
    kind: Any = str
    level: Any = pydantic.create_model
    for number in range(DEEP):
        kind = level(f"Level{number}", a=(kind, ...), b=(list[kind], ...))
    signature = signature_of(dspy_signature(kind), name="deep")
    assert len(signature.outputs[0].defs or {}) == DEEP


def dspy_signature(kind: Any) -> Any:
    import dspy

    make: Any = dspy.Signature
    return make({"q": (str, dspy.InputField()), "a": (kind, dspy.OutputField())}, "Do it.")


def read(schema: Schema, definitions: Schema) -> tuple[Signature | None, str]:
    try:
        return of(schema, definitions), ""
    except InvalidSignature as error:
        return None, error.message


PROPERTIES = settings(
    deadline=None,
    max_examples=sized(40, 400),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)


@PROPERTIES
@given(named_types())
def test_of_any_types_with_names(given_types: tuple[Schema, Schema]) -> None:
    """They come back from JSON as they were, equal themselves, and what is made for them fits; so says JSON Schema."""
    signature, refused = read(*given_types)
    if signature is None:
        assert any(said in refused for said in ("has no value that ends", "without an object", "nest"))
        return
    again = Signature.parse(json.loads(signature.model_dump_json()))
    assert (again, again.digest) == (signature, signature.digest)
    compared = compare(signature, again)
    assert (compared.changes, compared.notes) == ((), ())
    made = mock.maker(signature.outputs[0].type, "y")
    for seed in range(3):
        value = {"y": made(Draws(seed))}
        assert signature.validate_outputs(value) == value
        Draft202012Validator(signature.output_schema()).validate(value)
        TypeAdapter(unconstrained(signature.outputs[0].type, LENIENT)).validate_python(value["y"])

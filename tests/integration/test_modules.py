"""Signatures read out of real modules of DSPy classes, and the way from a signature to such a class and back."""

from __future__ import annotations

import json
import re
import sys
import textwrap
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from dspy.signatures.signature import make_signature
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adapters.native.signatures import dspy_signature
from dspex import Signature
from dspex.errors import InvalidModule, InvalidSignature
from dspex.signatures.dspy_class import signature_of
from tests.strategies import signatures
from workers.handlers.signature_modules import read_signatures, validate_module

pytestmark = [  # pytest brings filters of its own in the place of those that the adapter sets
    pytest.mark.filterwarnings("ignore:Field name .* shadows:UserWarning"),
    pytest.mark.filterwarnings("ignore:The 'prefix' argument:DeprecationWarning"),
]

Schema = dict[str, Any]
Write = Callable[..., str]

HEAD = """
from typing import Annotated, Any, List, Literal, NewType, Optional, Union
import enum
import re
from collections.abc import Mapping, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from uuid import UUID
import dspy
from pydantic import AnyUrl, Discriminator, HttpUrl, Tag
from pydantic import BaseModel, ConfigDict, Field, Strict, StringConstraints, field_validator
from pydantic import AfterValidator, BeforeValidator, PlainSerializer, PlainValidator, RootModel, WrapSerializer
from pydantic import WrapValidator, computed_field, field_serializer, model_serializer, model_validator
from annotated_types import Predicate
"""


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Writes a module and says its name; it is forgotten after the test."""
    (tmp_path / "acme_test").mkdir()
    (tmp_path / "acme_test" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)

    def write_module(text: str, name: str = "signatures", head: str = HEAD) -> str:
        (tmp_path / "acme_test" / f"{name}.py").write_text(head + textwrap.dedent(text))
        return f"acme_test.{name}"

    yield write_module
    for name in [name for name in sys.modules if name.partition(".")[0] == "acme_test"]:
        del sys.modules[name]


def refusal(reference: str) -> str:
    with pytest.raises(InvalidModule) as caught:
        read_signatures(reference, allowed_prefixes=None)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    assert validate_module(reference, None) is False
    return caught.value.message


def names(found: list[Signature]) -> list[str]:
    return [signature.name for signature in found]


# References

TWO = """
from dspy import Signature, InputField, OutputField

class _Base(Signature):
    ticket: str = InputField()
    urgency: str = OutputField()

class Triage(_Base):
    "Judge how urgent a ticket is."

class Answer(Signature):
    question: str = InputField()
    answer: str = OutputField()

Again = Answer
QA = dspy.Signature("question -> answer: float")
Nothing = None
"""


def test_a_class(write: Write) -> None:
    module = write(TWO)
    (found,) = read_signatures(f"{module}:Triage", allowed_prefixes=["acme_test"])
    assert found == Signature.parse(
        {
            "name": "Triage",
            "module": f"{module}.Triage",
            "instructions": "Judge how urgent a ticket is.",
            "arrow": "ticket -> urgency",
        }
    )
    assert validate_module(f"{module}:Triage", ["acme_test"]) is True


def test_all_of_a_module_in_their_order(write: Write) -> None:
    module = write(TWO)
    write(f"from {module} import *", "others")
    assert names(read_signatures(module, allowed_prefixes=None)) == ["Triage", "Answer", "QA"]
    assert "has no signatures" in refusal("acme_test")


def test_the_list_of_a_module(write: Write) -> None:
    write(TWO)
    module = write("from acme_test.signatures import Answer, QA\nSIGNATURES = (QA, Answer)", "listed")
    assert names(read_signatures(module, allowed_prefixes=["acme_test.listed"])) == ["QA", "Answer"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("SIGNATURES = 3", "SIGNATURES is not a list"),
        ("SIGNATURES = []", "has no signatures"),
        ("SIGNATURES = [str]", "SIGNATURES holds what is not a class derived from dspy.Signature"),
        ("SIGNATURES = [dspy.Signature]", "SIGNATURES holds what is not a class derived from dspy.Signature"),
        ("SIGNATURES = [dspy.Signature('q -> a'), dspy.Signature('q -> b')]", "two classes called StringSignature"),
        ("x = 3", "has no signatures"),
        ("sesame = 3; sesame()", "raised TypeError"),
        ("raise ValueError('sesame')", "raised ValueError"),
        ("import sys; sys.exit('sesame')", "raised SystemExit"),
        ("class E(BaseException): ...\nraise E('sesame')", "raised E"),
        ("import sesame_of_nobody", "needs sesame_of_nobody, which is not installed"),
        ("raise ModuleNotFoundError('sesame', name='x y')", "needs a module, which is not installed"),
        ("from enum import sesame", "raised ImportError"),
        ("class X(", "raised SyntaxError"),
    ],
)
def test_a_module_that_cannot_be_read(write: Write, text: str, said: str) -> None:
    message = refusal(write(text))
    assert said in message
    assert "sesame" not in message.replace("sesame_of_nobody", "")


@pytest.mark.parametrize(
    ("reference", "said"),
    [
        ("acme_test.nothing:Triage", "there is no module acme_test.nothing: install it"),
        ("acme_of_nobody.nothing", "there is no module acme_of_nobody: install it"),
        ("acme_test.signatures.more", "there is no module acme_test.signatures.more"),
        ("acme_test.signatures:Nobody", "acme_test.signatures has no Nobody"),
        ("acme_test.signatures:Nothing", "acme_test.signatures:Nothing is not a signature"),
        ("acme_test.signatures:dspy", "acme_test.signatures:dspy is not a signature"),
        ("acme_test.signatures:Signature", "acme_test.signatures:Signature is not a signature"),
        ("acme_test.signatures:BaseModel", "acme_test.signatures:BaseModel is not a signature"),
    ],
)
def test_what_is_not_there_or_no_signature(write: Write, reference: str, said: str) -> None:
    write(TWO)
    assert said in refusal(reference)


def test_a_module_that_answers_for_names_by_code(write: Write) -> None:
    assert "raised KeyError" in refusal(write("def __getattr__(name): raise KeyError('sesame')") + ":Triage")


def test_a_module_installed_later_is_found(write: Write) -> None:
    assert validate_module("acme_test.signatures:Triage", ["acme_test"]) is False
    assert validate_module(write(TWO) + ":Triage", ["acme_test"]) is True


# Types


def read_field(write: Write, annotation: str, field: str = "", before: str = "") -> Schema:
    data: Schema = read_class(write, annotation, field, before).inputs[0].model_dump(mode="json")
    assert data.pop("name") == "x"
    return data


def read_class(
    write: Write, annotation: str, field: str = "", before: str = "", *, name: str = "signatures"
) -> Signature:
    text = (
        f"\nclass S(dspy.Signature):\n    x: {annotation} = dspy.InputField({field})\n    y: str = dspy.OutputField()"
    )
    (found,) = read_signatures(write(textwrap.dedent(before) + text, name) + ":S", allowed_prefixes=None)
    return found


NULL = {"type": "null"}


@pytest.mark.parametrize(
    ("annotation", "schema"),
    [
        ("str", {"type": "string"}),
        ("int", {"type": "integer"}),
        ("float", {"type": "number"}),
        ("bool", {"type": "boolean"}),
        ("Literal['a', 'b']", {"type": "string", "enum": ["a", "b"]}),
        ("Literal['a', 1, True]", {"enum": ["a", 1, True]}),
        ("Literal['a', None]", {"anyOf": [{"type": "string", "enum": ["a"]}, NULL]}),
        ("Optional[Literal['a', None]]", {"anyOf": [{"type": "string", "enum": ["a"]}, NULL]}),
        ("list[int]", {"type": "array", "items": {"type": "integer"}}),
        ("List[List[int]]", {"type": "array", "items": {"type": "array", "items": {"type": "integer"}}}),
        ("dict[str, float]", {"type": "object", "additionalProperties": {"type": "number"}}),
        ("Optional[int]", {"anyOf": [{"type": "integer"}, NULL]}),
        ("int | None", {"anyOf": [{"type": "integer"}, NULL]}),
        ("None | list[int | None]",
         {"anyOf": [{"type": "array", "items": {"anyOf": [{"type": "integer"}, NULL]}}, NULL]}),
        ("Annotated[int, Field(ge=1), Field(le=3)]", {"type": "integer", "minimum": 1, "maximum": 3}),
        ("Annotated[Annotated[int, Field(ge=1)], Field(ge=0)]", {"type": "integer", "minimum": 1}),
        ("Annotated[int, Field(multiple_of=4), Field(multiple_of=6)]", {"type": "integer", "multipleOf": 12}),
        ("list[Annotated[str, Field(max_length=3, description='one')]]",
         {"type": "array", "items": {"type": "string", "maxLength": 3, "description": "one"}}),
        ("Annotated[str, StringConstraints(min_length=1, strict=True)]", {"type": "string", "minLength": 1}),
        ("Annotated[int, Strict(), 'a remark']", {"type": "integer"}),
        ("NewType('Name', str)", {"type": "string"}),
        ("int | str", {"anyOf": [{"type": "integer"}, {"type": "string"}]}),
        ("Union[None, int, str]", {"anyOf": [NULL, {"type": "integer"}, {"type": "string"}]}),
        ("set[str]", {"type": "array", "items": {"type": "string"}, "uniqueItems": True}),
        ("tuple[int, str]",
         {"type": "array", "prefixItems": [{"type": "integer"}, {"type": "string"}], "minItems": 2, "maxItems": 2}),
        ("Any", {}),
        ("list", {"type": "array"}),
        ("dict", {"type": "object"}),
        ("List", {"type": "array"}),
        ("dict[str, Any]", {"type": "object", "additionalProperties": {}}),
        ("Annotated[str, Field(pattern='^a+$')]", {"type": "string", "pattern": "^a+$"}),
        ("date", {"type": "string", "format": "date"}),
        ("datetime | None", {"anyOf": [{"type": "string", "format": "date-time"}, NULL]}),
        ("list[time]", {"type": "array", "items": {"type": "string", "format": "time"}}),
        ("timedelta", {"type": "string", "format": "duration"}),
        ("UUID", {"type": "string", "format": "uuid"}),
        ("Decimal", {"type": "string", "format": "decimal"}),
        ("AnyUrl", {"type": "string", "format": "uri"}),
        ("HttpUrl", {"type": "string", "title": "HttpUrl", "format": "uri", "pattern": "^[Hh][Tt][Tt][Pp][Ss]?:"}),
    ],
)  # fmt: skip
def test_types(write: Write, annotation: str, schema: Schema) -> None:
    assert read_field(write, annotation) == {"type": schema}


@pytest.mark.parametrize(
    ("annotation", "field", "data"),
    [
        ("int", "ge=0, lt=9, multiple_of=3",
         {"type": {"type": "integer", "minimum": 0, "exclusiveMaximum": 9, "multipleOf": 3}}),
        ("int", "ge=1.0", {"type": {"type": "integer", "minimum": 1}}),
        ("float", "gt=0, le=1, allow_inf_nan=False",
         {"type": {"type": "number", "exclusiveMinimum": 0.0, "maximum": 1.0}}),
        ("str", "min_length=1, max_length=3", {"type": {"type": "string", "minLength": 1, "maxLength": 3}}),
        ("list[str]", "min_length=1", {"type": {"type": "array", "items": {"type": "string"}, "minItems": 1}}),
        ("Optional[int]", "ge=0", {"type": {"anyOf": [{"type": "integer", "minimum": 0}, NULL]}}),
        ("Optional[int]", "default=None", {"type": {"anyOf": [{"type": "integer"}, NULL]}}),
        ("Optional[int]", "default=3", {"type": {"anyOf": [{"type": "integer"}, NULL]}, "default": 3}),
        ("int", "default=3", {"type": {"type": "integer"}, "default": 3}),
        ("list[int]", "default_factory=list", {"type": {"type": "array", "items": {"type": "integer"}}, "default": []}),
        ("str", "desc='what it is'", {"type": {"type": "string"}, "description": "what it is"}),
        ("str", "description='what it is'", {"type": {"type": "string"}, "description": "what it is"}),
        ("Annotated[str, Field(description='what')]", "", {"type": {"type": "string"}, "description": "what"}),
    ],
)  # fmt: skip
def test_fields(write: Write, annotation: str, field: str, data: Schema) -> None:
    assert read_field(write, annotation, field) == data


MODELS = '''
class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"

class Line(BaseModel):
    """One line of an order."""
    article: str = Field(alias="class", min_length=1)
    count: int = Field(default=1, ge=1, description="how many")
    color: Color | None = None

class Order(BaseModel):
    model_config = ConfigDict(extra="forbid")
    lines: list[Line] = Field(max_length=9)
    first: Line = Field(description="of all")
    notes: dict[str, Line] = {}
'''


def test_nested_models(write: Write) -> None:
    color = {"type": "string", "title": "Color", "enum": ["red", "blue"], "names": ["RED", "BLUE"]}
    line = {
        "type": "object",
        "title": "Line",
        "description": "One line of an order.",
        "properties": {
            "class": {"type": "string", "minLength": 1, "attribute": "article"},
            "count": {"type": "integer", "minimum": 1, "description": "how many", "default": 1},
            "color": {"anyOf": [color, NULL]},
        },
        "required": ["class"],
    }
    assert read_field(write, "Order", before=MODELS)["type"] == {
        "type": "object",
        "title": "Order",
        "properties": {
            "lines": {"type": "array", "items": line, "maxItems": 9},
            "first": line | {"description": "of all", "docstring": "One line of an order."},
            "notes": {"type": "object", "additionalProperties": line, "default": {}},
        },
        "required": ["lines", "first"],
        "additionalProperties": False,
    }


@pytest.mark.parametrize("where", ["annotation", "field"])
def test_models_that_a_property_tells_apart(write: Write, where: str) -> None:
    both = ("One | Two", "discriminator='kind'") if where == "field" else (
        "Annotated[Union[One, Two], Field(discriminator='kind')]", ""
    )  # fmt: skip
    kinds = [
        {
            "title": name.title(),
            "type": "object",
            "properties": {"kind": {"type": "string", "enum": [name]}},
            "required": ["kind"],
        }
        for name in ("one", "two")
    ]
    assert read_field(write, *both, before=BAD)["type"] == {
        "oneOf": kinds,
        "discriminator": {"propertyName": "kind"},
    }


def test_a_model_as_a_default_is_kept_as_data(write: Write) -> None:
    assert read_field(write, "Line", "default=Line(**{'class': 'a'}, color=Color.RED)", MODELS)["default"] == {
        "class": "a",
        "count": 1,
        "color": "red",
    }


BAD = """
class Open(BaseModel):
    model_config = ConfigDict(extra="allow")
    a: str

class Strange(BaseModel):
    a: str
    @field_validator("a", mode="plain")
    def check(cls, value):
        return value

class Rooted(RootModel[list[str]]):
    ...

class Ruled(BaseModel):
    model_config = ConfigDict(str_to_lower=True, json_schema_extra={"x-team": "desk"}, json_encoders={date: str})
    a: str = Field(deprecated=True)
    b: Annotated[list[int], AfterValidator(sorted), Field(json_schema_extra={"x-unit": "m"})]
    c: Annotated[int, PlainSerializer(str)] = 1

    @field_validator("a", "b")
    def check(cls, value):
        raise ValueError("sesame")

    @model_validator(mode="after")
    def agree(self):
        raise ValueError("sesame")

    @field_serializer("c")
    def shown(self, value):
        return "sesame"

    @model_serializer(mode="wrap")
    def written(self, handler):
        return handler(self)

    @computed_field
    def total(self) -> int:
        return 1

    def model_post_init(self, context):
        raise ValueError("sesame")

class Aliased(BaseModel):
    a: str = Field(validation_alias="b")

class Empty(BaseModel):
    ...

class Holder(BaseModel):
    when: list[complex]

class Plain:
    __get_pydantic_core_schema__ = classmethod(lambda cls, source, handler: handler(str))

class Mine(dspy.Type):
    a: str
    def format(self):
        return self.a

def broken():
    raise ValueError("sesame")

class Wide(enum.Enum):
    HALF = 0.5

class One(BaseModel):
    kind: Literal["one"]

class Two(BaseModel):
    kind: Literal["two"]
"""


@pytest.mark.parametrize(
    ("annotation", "field", "said"),
    [
        ("dspy.Tool", "", "S.x: dspy.adapters.types.tool.Tool cannot"),
        ("Optional[dspy.Code]", "", "S.x: dspy.adapters.types.code.Code cannot"),
        ("list[dspy.History]", "", "S: input 'x' has a history inside of another type: make it an input itself"),
        ("Mine", "", "S.x: acme_test.signatures.Mine cannot"),
        ("Plain", "", "S.x: acme_test.signatures.Plain cannot"),
        ("object", "", "S.x: object cannot"),
        ("bytes", "", "S.x: bytes cannot"),
        ("None", "", "S.x: NoneType cannot"),
        ("tuple", "", "S.x: tuple cannot"),
        ("frozenset", "", "S.x: frozenset cannot"),
        ("Mapping[int, str]", "", "has keys that are not str"),
        ("set", "", "S.x: set cannot"),
        ("dict[int, str]", "", "S.x: dict[int, str] has keys that are not str"),
        ("int | bytes", "", "S.x<2>: bytes cannot"),
        (
            "Annotated[Union[Annotated[int, Tag('a')], Annotated[str, Tag('b')]], Discriminator(len)]",
            "",
            "cannot be kept as data",
        ),
        ("Literal[b'a']", "", "S.x: Literal[b'a'] holds what is not text"),
        ("Wide", "", "S.x: acme_test.signatures.Wide holds what is not text"),
        ("Strange", "", "S.x: acme_test.signatures.Strange reads a by its validator check alone"),
        ("Rooted", "", "S.x: acme_test.signatures.Rooted is a RootModel: use the type in it"),
        ("Annotated[int, PlainValidator(int)]", "", "PlainValidator cannot be kept as data"),
        (
            "Annotated[int, BeforeValidator(int, json_schema_input_type=str)]",
            "",
            "BeforeValidator cannot be kept as data",
        ),
        ("Aliased", "", "S.x: its a has several aliases"),
        ("Empty", "", "S.x.type.properties: "),
        ("Holder", "", "S.x.when[]: complex cannot"),
        ("str", "pattern='a' * 201", "S.x.type.pattern: a pattern has at most 200 characters"),
        ("str", "pattern=re.compile('a')", "S.x: a compiled pattern cannot be kept"),
        ("Annotated[str, Field(pattern='a')]", "pattern='b'", "S.x: has several patterns"),
        ("float", "ge=float('-inf')", "S.x.type.minimum: "),
        ("int", "default_factory=broken", "S.x: its default raised ValueError"),
        ("str", "default_factory=object", "S.x: its default raised PydanticSerializationError"),
        ("int", "default='a'", "S: the default of x: "),
        ("list[list[list[list[list[list[list[list[list[int]]]]]]]]]", "", "S.x: type: types nest deeper than 8"),
    ],
)
def test_what_cannot_be_kept_is_named(write: Write, annotation: str, field: str, said: str) -> None:
    with pytest.raises(InvalidSignature) as caught:
        read_field(write, annotation, field, BAD)
    assert said in caught.value.message
    assert "sesame" not in caught.value.message
    assert len(caught.value.problems) == 1
    assert validate_module("acme_test.signatures:S", ["acme_test"]) is False


@pytest.mark.parametrize(
    ("annotation", "field", "lost"),
    [
        ("Open", "", "x: acme_test.signatures.Open allows keys that it does not know (extra), which are refused"),
        ("int", "pattern='a'", "x: pattern is not checked: it cannot be kept for int"),
        ("date", "ge=date(2026, 1, 1)", "x: ge is not checked: it cannot be kept for datetime.date"),
        ("Annotated[str, StringConstraints(to_lower=True)]", "", "x: to_lower is not applied"),
        ("float", "multiple_of=0.5", "x: multiple_of is not checked: it cannot be kept for float"),
        ("dict[str, str]", "min_length=1", "x: min_length is not checked: it cannot be kept for dict[str, str]"),
        ("Annotated[int, AfterValidator(abs)]", "", "x: AfterValidator(abs) is not run"),
        ("list[Annotated[int, BeforeValidator(int)]]", "", "x[]: BeforeValidator(int) is not run"),
        ("Annotated[int, WrapValidator(lambda value, read: 1)]", "", "x: WrapValidator(<lambda>) is not run"),
        ("Annotated[int, WrapSerializer(lambda value, write: 1)]", "", "x: WrapSerializer(<lambda>) is not run"),
        ("Annotated[str, Predicate(str.isupper)]", "", "x: Predicate(isupper) is not checked"),
    ],
)
def test_what_is_lost_of_a_class_is_named(write: Write, annotation: str, field: str, lost: str) -> None:
    found = read_class(write, annotation, field, BAD)
    (line,) = found.warnings
    assert line.startswith(lost)
    with pytest.raises(InvalidSignature, match=re.escape(lost)):
        found.check_whole()
    assert found == Signature.parse(found.model_dump(mode="json"))


@pytest.mark.parametrize(
    ("annotation", "same", "shown"),
    [
        ("tuple[int, ...]", "list[int]", "list"),
        ("Sequence[Optional[date]]", "list[Optional[date]]", "list"),
        ("frozenset[str]", "set[str]", "set"),
        ("Mapping[str, One]", "dict[str, One]", "dict"),
    ],
)
def test_types_that_have_the_values_of_others(write: Write, annotation: str, same: str, shown: str) -> None:
    found = read_class(write, f"list[{annotation}]", "", BAD)
    (line,) = found.warnings
    assert line.startswith("x[]: ")
    assert line.endswith(f" is kept as {shown}[...], and shown as that")
    assert found.inputs[0].type == read_class(write, f"list[{same}]", "", BAD, name="again").inputs[0].type


def test_all_rules_of_a_model_are_named_and_none_is_run(write: Write) -> None:
    found = read_class(write, "Ruled | None", "", BAD)
    of_model = "x: acme_test.signatures.Ruled "
    assert sorted(found.warnings) == sorted(
        [
            f"{of_model}checks a, b by its validator check, which is not run",
            f"{of_model}has the validator agree, which is not run",
            f"{of_model}writes c by its serializer shown, which is not run",
            f"{of_model}has the serializer written, which is not run",
            f"{of_model}computes total, which is neither shown nor kept",
            f"{of_model}has a model_post_init of its own, which is not run",
            f"{of_model}has str_to_lower in its configuration, which is not applied",
            f"{of_model}has json_schema_extra in its configuration, which is not shown",
            f"{of_model}has json_encoders in its configuration, which is not applied",
            "x.a: deprecated is not shown",
            "x.b: AfterValidator(sorted) is not run",
            "x.b: json_schema_extra is not shown",
            "x.c: PlainSerializer(str) is not run",
        ]
    )
    assert found.validate_inputs({"x": {"a": "A", "b": [2, 1]}}) == {"x": {"a": "A", "b": [2, 1]}}


def test_every_wrong_field_of_every_class_is_named(write: Write) -> None:
    module = write(
        """
        class One(dspy.Signature):
            a: object = dspy.InputField()
            b: str = dspy.InputField()
            c: bytes = dspy.OutputField()

        class Two(dspy.Signature):
            a: str = dspy.InputField()

        class Three(dspy.Signature):
            a: str = dspy.InputField()
            b: str = dspy.OutputField(default="x")
        """
    )
    with pytest.raises(InvalidSignature) as caught:
        read_signatures(module, allowed_prefixes=None)
    assert [problem.field for problem in caught.value.problems] == ["One.a", "One.c", "Two.outputs", "Three"]
    assert "output 'b' has a default" in caught.value.message


def test_the_sentence_that_dspy_writes_is_no_instruction() -> None:
    written: Any = make_signature("question, k: int -> answer")
    assert written.instructions
    assert signature_of(written, name="QA") == Signature.parse({"name": "QA", "arrow": "question, k: int -> answer"})


# There and back


def carried(data: Schema) -> Schema:
    """What of a signature DSPy's class carries, as `dspex.signatures.dspy_class` says."""
    kept: Schema = {}
    if data.get("instructions"):
        kept["instructions"] = data["instructions"]
    for direction in ("inputs", "outputs"):
        kept[direction] = []
        for field in data[direction]:
            description = field.get("description") or field["type"].get("description")
            kept[direction].append(
                {"name": field["name"], "type": carried_type(field["type"])}
                | ({"description": description} if description else {})
            )
    return kept


def hashable(schema: Schema) -> bool:
    """Whether values of the type may be in a Python set. A set of others is shown as a list."""
    if "anyOf" in schema:
        return schema["anyOf"][1:] == [NULL] and hashable(schema["anyOf"][0])
    if "prefixItems" in schema:
        return all(map(hashable, schema["prefixItems"]))
    return "enum" in schema or "const" in schema or schema.get("type") in ("string", "integer", "number", "boolean")


def carried_type(schema: Schema) -> Schema:  # noqa: C901  # one case for each type
    """The same for a type: without its own description, which is kept by whoever holds it, or not."""
    kept: dict[str, Any] = {key: value for key, value in schema.items() if key != "description"}
    if "anyOf" in kept:
        flat: list[Any] = []  # Python's unions are flat, and have each type once
        for choice in kept["anyOf"]:
            carried: Any = NULL if choice == NULL else carried_type(choice)
            there = {json.dumps(one) for one in flat}  # 1 and True are two, though equal in Python
            flat += [one for one in carried.get("anyOf", [carried]) if json.dumps(one) not in there]
        some = [one for one in flat if one != NULL]
        return {"anyOf": flat} if len(some) > 1 else {"anyOf": [some[0], NULL]} if len(flat) > 1 else some[0]
    if "oneOf" in kept:
        return kept | {"oneOf": [carried_type(one) for one in kept["oneOf"]]}
    if "prefixItems" in kept:
        return kept | {"prefixItems": [carried_type(one) for one in kept["prefixItems"]]}
    if "const" in kept:
        kept = {"enum": [kept["const"]]}
    if "enum" in kept:
        return kept | ({"type": "string"} if all(isinstance(value, str) for value in kept["enum"]) else {})
    if "uniqueItems" in kept and not hashable(kept["items"]):
        del kept["uniqueItems"]
    if "items" in kept:
        return kept | {"items": carried_type(kept["items"])}
    if "properties" not in kept:
        inner = kept.pop("additionalProperties", True)
        return kept | ({} if inner is True else {"additionalProperties": carried_type(inner)})
    properties = {}
    for name, member in kept["properties"].items():
        properties[name] = carried_type(member)
        choices = properties[name].get("anyOf", [properties[name]])
        if name not in kept["required"] and NULL not in choices:
            properties[name] = {"anyOf": [*choices, NULL]}
        if "description" in member:
            properties[name]["description"] = member["description"]
    return kept | {"properties": properties}


@st.composite
def described(draw: st.DrawFn) -> Schema:
    """Signatures with descriptions here and there."""
    signature = deepcopy(draw(signatures()))

    def describe(schema: Schema) -> None:
        if draw(st.booleans()):
            schema["description"] = draw(st.sampled_from(["one", "a {brace} and a $sign"]))
        for inner in [*schema.get("properties", {}).values(), schema.get("items"), *schema.get("anyOf", [])[:1]]:
            if isinstance(inner, dict):
                describe(inner)
        if isinstance(schema.get("additionalProperties"), dict):
            describe(schema["additionalProperties"])

    for field in [*signature["inputs"], *signature["outputs"]]:
        describe(field["type"])
        if draw(st.booleans()):
            field["description"] = "of the field"
    return signature


def there_and_back(signature: Signature) -> Signature:
    return signature_of(dspy_signature(signature), name=signature.name, module=signature.module)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(described())
def test_there_and_back(data: Schema) -> None:
    assert there_and_back(Signature.parse(data)) == Signature.parse(carried(data))


@pytest.mark.parametrize(
    "given_signature",
    [
        "question -> answer",
        "question: str, k: int, tags: Optional[list[str]] -> answer: str, label: Literal['a', 'b'], score: float",
        "a: Literal[1, 'x', True], b: dict[str, list[int]], c: list[Optional[bool]] -> d: Optional[dict[str, float]]",
        {"arrow": "q -> a", "instructions": "First line.\n\n    indented\nLast line."},
        {
            "inputs": [{"name": "ticket", "type": {"type": "string", "maxLength": 9}, "description": "what"}],
            "outputs": [
                {"name": "urgency", "type": {"type": "string", "enum": ["low", "high"]}},
                {"name": "confidence", "type": {"type": "number", "minimum": 0, "maximum": 1}},
                {"name": "steps", "type": {"type": "array", "items": {"type": "integer", "minimum": 2}, "minItems": 1}},
                {
                    "name": "person",
                    "type": {
                        "type": "object",
                        "properties": {
                            "class": {"type": "string", "minLength": 1, "description": "by alias"},
                            "age": {"anyOf": [{"type": "integer", "exclusiveMinimum": 0}, NULL]},
                        },
                        "required": ["class", "age"],
                    },
                },
            ],
        },
    ],
)  # fmt: skip
def test_what_survives_whole(given_signature: Any) -> None:
    signature = Signature.parse(given_signature)
    again = there_and_back(signature)
    assert again == signature
    assert again.digest == signature.digest


def test_a_default_does_not_survive() -> None:
    assert there_and_back(Signature.parse("q, k: int = 3 -> a")) == Signature.parse("q, k: int -> a")

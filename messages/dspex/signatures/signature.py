"""A signature: typed inputs and outputs of an LM program, as data.

A signature generates the JSON Schemas of its inputs and outputs, and validates values of both.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from typing import Annotated, Any

import pydantic
from pydantic import (
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, to_json

from dspex.cached import cached
from dspex.errors import InvalidInput, InvalidOutput, InvalidSignature, InvalidValues, Problem
from dspex.ids import digest
from dspex.lru import Lru
from dspex.model import Sparse, problems
from dspex.signatures import attachments
from dspex.signatures.annotations import JSON, LENIENT, OBJECTS, Reading, forget_types, object_model, unconstrained
from dspex.signatures.arrow import MAX_LENGTH, parse_arrow
from dspex.signatures.as_it_comes import as_it_comes
from dspex.signatures.classes import has_objects
from dspex.signatures.definitions import MAX_VALUE_DEPTH, contains_itself
from dspex.signatures.documents import SharedDefinitions, document
from dspex.signatures.field import SignatureField
from dspex.signatures.measures import count_types, count_values, in_order, nests_deeper
from dspex.signatures.names import GENERIC, with_name

MAX_FIELDS = 64
MAX_TYPES = 2_000
"""The size limit of a signature: fields, types with their members, values of enums, and values in defaults, in all.

Measured: compiling one member of an object takes 0.2 ms and 7 kB, so a signature at the limit takes 0.5 s and 15 MB,
once.
"""
TYPE_BYTES = 7_000
MODELS_BYTES = 64 * 1024 * 1024
"""The size of the cached compiled models, in estimated bytes."""

_ACCEPTED = object()
"""The validation context for a signature that was accepted before."""

ModuleName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*$", max_length=200)]
SemVer = Annotated[
    str,
    Field(pattern=r"^(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?$", max_length=64),
]


class Signature(Sparse):
    """Typed inputs and outputs, with instructions. Without a name it gets one from its fields.

    Written as data (`inputs`, `outputs`) or with the arrow form: `{"arrow": "question -> answer"}`, or just the text.
    """

    model_config = ConfigDict(ignored_types=(cached,))

    name: str = Field(
        default=GENERIC,
        min_length=1,
        max_length=200,
        description=f"without one, or with the word `{GENERIC}`, it is made of the names of the fields",
    )
    module: ModuleName | None = None
    version: SemVer = "1.0.0"
    description: str | None = Field(
        default=None, max_length=20_000, description="for people; the LM is shown the instructions alone"
    )
    instructions: str | None = Field(default=None, max_length=20_000)
    inputs: tuple[SignatureField, ...] = Field(min_length=1, max_length=MAX_FIELDS)
    outputs: tuple[SignatureField, ...] = Field(min_length=1, max_length=MAX_FIELDS)

    @classmethod
    def parse(cls, value: str | Mapping[str, Any]) -> Signature:
        """A signature from the arrow form or from data.

        Raises:
            InvalidSignature: the signature is invalid. It names every wrong field.
        """
        try:
            return cls.model_validate(value)
        except pydantic.ValidationError as error:
            raise InvalidSignature(problems(error)) from None

    @classmethod
    def given(cls, value: str | Mapping[str, Any]) -> Signature:
        """A signature from the arrow form, or from data whose types may be any JSON Schema. `lost` says what is lost.

        Raises:
            InvalidSignature: the signature is invalid, or a type of it would mean something else as ours.
        """
        data, lost = in_our_form(value)
        return cls.parse(data).losing(lost)

    @classmethod
    def accepted(cls, value: Any, *, of_any_version: bool = False) -> Signature:
        """Read a signature that was accepted before. The limits may have been higher then, so none is checked.

        Args:
            of_any_version: ignore members that a later version has added.
        """
        return cls.model_validate(value, context=_ACCEPTED, extra="ignore" if of_any_version else None)

    @model_validator(mode="before")
    @classmethod
    def _read_arrow(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, str):
            value = {"arrow": value}
        if not isinstance(value, Mapping):
            return value
        if "arrow" not in value:
            if info.context is not _ACCEPTED:
                _check_size([*_listed(value.get("inputs")), *_listed(value.get("outputs"))])
            return with_name(value)
        data = dict(value)
        arrow = data.pop("arrow")
        if not isinstance(arrow, str) or "inputs" in data or "outputs" in data:
            raise ValueError("give either 'arrow' (text), or 'inputs' and 'outputs'")
        try:
            inputs, outputs = parse_arrow(arrow)
        except InvalidSignature as error:
            raise ValueError(error.message) from None
        for key, fields in (("inputs", inputs), ("outputs", outputs)):
            data[key] = [
                {"name": f.name, "type": f.type} | ({"default": f.default} if f.has_default else {}) for f in fields
            ]
        return with_name(data)

    @model_validator(mode="after")
    def _check_fields(self, info: ValidationInfo) -> Signature:
        fields = (*self.inputs, *self.outputs)
        if info.context is not _ACCEPTED:
            _check_size(fields)
        names = [field.name for field in fields]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"field '{name}' is there twice")
        for field in self.outputs:
            if "default" in field.model_fields_set:
                raise ValueError(f"output '{field.name}' has a default: only inputs can have one")
        attachments.check_places(self.inputs, self.outputs)
        try:
            _ = self._defaults
        except InvalidInput as error:
            raise ValueError(f"the default of {error.problems[0]}") from None
        # Escapes in the arrow form can produce characters that the JSON text does not contain.
        reason = unstorable(self.model_dump())
        if reason is not None:
            raise ValueError(f"a text {reason}")
        return self

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        schema = handler(core_schema)
        if handler.mode == "serialization":
            return schema
        text = {"type": "string", "description": "the arrow form: `question -> answer`"}
        others = {name: field for name, field in schema["properties"].items() if name not in ("inputs", "outputs")}
        arrow = schema | {"properties": {"arrow": text} | others, "required": ["arrow"]}
        del arrow["title"], arrow["description"]
        described = {key: schema.pop(key) for key in ("title", "description")}
        forms = [{"title": "SignatureAsData"} | schema, {"title": "SignatureAsArrow"} | arrow, text]
        return described | {"anyOf": forms}

    @cached
    def digest(self) -> str:
        """SHA-256 of what the LM and callers depend on: instructions, inputs and outputs.

        Without name, version and description, which are for people.
        """
        content = self.model_dump(mode="json", include={"instructions", "inputs", "outputs"})
        for field in (*content["inputs"], *content["outputs"]):
            for one in (field["type"], *field.get("$defs", {}).values()):
                in_order(one)
        return digest(content)

    @cached
    def lost(self) -> tuple[Problem, ...]:
        """What the types of the signature cannot say of what it was read from: a schema, or a class.

        It is told to whoever gave it, and is no part of the data.
        """
        return ()

    @property
    def warnings(self) -> tuple[str, ...]:
        """The same, as lines."""
        return tuple(map(str, self.lost))

    def losing(self, lost: Iterable[Problem]) -> Signature:
        """This signature, which was read with losses."""
        vars(self)["lost"] = tuple(lost)
        return self

    def check_whole(self) -> None:
        """Check that nothing was lost.

        Raises:
            InvalidSignature: something was. It names each.
        """
        if self.lost:
            raise InvalidSignature(self.lost)

    @cached
    def size(self) -> int:
        """The estimated memory of the signature and its compiled models, in bytes."""
        return len(self.model_dump_json()) + TYPE_BYTES * _count(self.inputs + self.outputs)

    def input_schema(self) -> dict[str, Any]:
        """JSON Schema 2020-12 of an inputs object."""
        return _object_schema(self.inputs)

    def output_schema(self) -> dict[str, Any]:
        """JSON Schema 2020-12 of an outputs object."""
        return _object_schema(self.outputs)

    def json_schema(self) -> dict[str, Any]:
        """JSON Schema 2020-12 of both, as the properties `inputs` and `outputs` of one object."""
        definitions = SharedDefinitions()
        both = {"inputs": definitions.properties(self.inputs), "outputs": definitions.properties(self.outputs)}
        text = self.description or self.instructions
        described = {"title": self.name} | ({"description": text} if text else {})
        whole = {
            **described,
            "type": "object",
            "properties": both,
            "required": list(both),
            "additionalProperties": False,
        }
        return document(whole, definitions)

    def validate_inputs(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Validate inputs. Returns JSON values with defaults filled in. Coerces nothing: `"3"` is not an integer.

        Raises:
            InvalidInput: the inputs do not fit. It names every wrong field.
        """
        self._check_depth(values, InvalidInput)
        given = _validate(self._input_model, values, InvalidInput)
        if self.attachments:
            given = self._with_checked_turns(given)
            attachments.check_count(self.attachments, self.attachments_of_turns, given)
        return deepcopy(self._defaults) | given if self._defaults else given

    def validate_outputs(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Validate outputs, and return them as JSON values. Coerces nothing.

        Raises:
            InvalidOutput: the outputs do not fit. It names every wrong field.
        """
        self._check_depth(values, InvalidOutput)
        return _validate(self._output_model, values, InvalidOutput)

    def _check_depth(self, values: Mapping[str, Any], raises: type[InvalidValues]) -> None:
        deep = [name for name in self._endless if nests_deeper(values.get(name), MAX_VALUE_DEPTH)]
        if deep:
            raise raises([Problem(name, f"nests deeper than {MAX_VALUE_DEPTH}") for name in deep])

    @cached
    def _endless(self) -> tuple[str, ...]:
        """The fields whose types contain themselves."""
        return tuple(field.name for field in self.inputs + self.outputs if contains_itself(field.type))

    @cached
    def attachments(self) -> tuple[SignatureField, ...]:
        """The inputs that have images, audio, files or turns."""
        return attachments.holders(self.inputs)

    @cached
    def attachments_of_turns(self) -> tuple[SignatureField, ...]:
        """The fields of a turn that have images, audio or files."""
        return attachments.holders(attachments.fields_of_turns(self.inputs, self.outputs))

    @cached
    def _turn_model(self) -> type[pydantic.BaseModel]:
        return _model("Turn", attachments.fields_of_turns(self.inputs, self.outputs))

    def _with_checked_turns(self, values: dict[str, Any]) -> dict[str, Any]:
        """Values whose turns have fields of the signature, each of its type.

        Raises:
            InvalidInput: the first turn that does not fit. It names every wrong field of it.
        """
        checked = dict(values)
        for field in self.attachments:
            if values.get(field.name) is None or not attachments.is_history(field.type):
                continue
            turns = []
            for number, turn in enumerate(values[field.name]["messages"]):
                try:
                    turns.append(_validate(self._turn_model, turn, InvalidInput))
                except InvalidInput as error:
                    path = f"{field.name}.messages.{number}"
                    raise InvalidInput([Problem(f"{path}.{name}", said) for name, said in error.problems]) from None
            checked[field.name] = {"messages": turns}
        return checked

    @cached
    def _defaults(self) -> dict[str, Any]:
        given = tuple(field for field in self.inputs if "default" in field.model_fields_set)
        absent = {field.name: None for field in self.inputs if not field.required}
        if not given:
            return absent
        values = {field.name: field.default for field in given}
        self._check_depth(values, InvalidInput)
        # Not cached: the signature may still be refused.
        return absent | _validate(_compiled("Defaults", given), values, InvalidInput)

    @cached
    def _input_model(self) -> type[pydantic.BaseModel]:
        return _model("Inputs", self.inputs)

    @cached
    def _output_model(self) -> type[pydantic.BaseModel]:
        return _model("Outputs", self.outputs)

    @cached
    def input_objects(self) -> dict[str, pydantic.TypeAdapter[Any]]:
        """For the inputs that DSPy is shown as objects: what makes them of JSON."""
        return {
            field.name: pydantic.TypeAdapter(unconstrained(field.type, LENIENT, name=field.name.title()))
            for field in self.inputs
            if has_objects(field.type)
        }

    @cached
    def output_model(self) -> type[pydantic.BaseModel]:
        """A pydantic model of the outputs, with an attribute for each; nested objects are models, too.

        A date is a `datetime.date`; `dspex.signatures.formats` says what other texts become.
        An attribute gets a trailing underscore if Python or pydantic reserve its name: `class_`, `copy_`.
        """
        return _model("Outputs", self.outputs, OBJECTS)


def _read(value: Any, _: ValidatorFunctionWrapHandler) -> Signature:
    return value if isinstance(value, Signature) else Signature.accepted(value, of_any_version=True)


StoredSignature = Annotated[Signature, WrapValidator(_read)]
"""A signature in an answer, which the reader does not validate again."""

_models: Lru[tuple[str, Reading, bytes], type[pydantic.BaseModel]] = Lru(MODELS_BYTES)
"""Compiled models, cached because compiling takes a millisecond and many programs share a signature."""


def _model(name: str, fields: tuple[SignatureField, ...], reading: Reading = JSON) -> type[pydantic.BaseModel]:
    key = name, reading, _FIELDS.dump_json(fields)  # not `to_json`: before pydantic 2.14 it builds no serializer
    model = _models.get(key)
    if model is None:
        model = _compiled(name, _FIELDS.validate_json(key[2]), reading)
        _models.put(key, model, len(key[2]) + TYPE_BYTES * _count(fields))
    return model


def _compiled(name: str, fields: tuple[SignatureField, ...], reading: Reading = JSON) -> type[pydantic.BaseModel]:
    try:
        return object_model(name, fields, reading)
    finally:
        if _count(fields) > MAX_TYPES // 20:
            forget_types()


def in_our_form(value: Any) -> tuple[Any, tuple[Problem, ...]]:
    """Data for a signature whose types may be any JSON Schema, in our own form, and what is lost.

    What is no such data, or too much, stays as it is: it is refused when it is read.

    Raises:
        InvalidSignature: a type would mean something else in our form.
    """
    if not isinstance(value, Mapping) or not ("inputs" in value or "outputs" in value):
        return value, ()
    try:
        _check_size([*_listed(value.get("inputs")), *_listed(value.get("outputs"))])
    except ValueError:
        return value, ()
    return as_it_comes(value)


def _listed(fields: object) -> Sequence[object]:
    return fields if isinstance(fields, list | tuple) else ()


def _check_size(fields: Sequence[object]) -> None:
    """Check that a signature of these fields, which may be unvalidated data, is small enough to be read."""
    count = _count(fields)
    if count > MAX_TYPES:
        raise ValueError(
            f"the signature has {count} fields, types, enum values and values in defaults, all counted; "
            f"at most {MAX_TYPES} are allowed: make it smaller"
        )
    texts = (field.get("type") for field in fields if isinstance(field, Mapping))
    length = sum(len(text) for text in texts if isinstance(text, str))
    if length > MAX_LENGTH:
        raise ValueError(f"types in the arrow form have {length} characters; at most {MAX_LENGTH} are allowed in all")


def _count(fields: Sequence[object]) -> int:
    count = 0
    for field in fields:
        given = field if isinstance(field, Mapping) else {}
        if isinstance(field, SignatureField):
            given = {name: getattr(field, name) for name in field.model_fields_set} | {"$defs": field.defs}
        count += count_types(given.get("type"))
        for types in (given.get("$defs"), _mapping(given.get("type")).get("$defs")):
            count += sum(map(count_types, _mapping(types).values()))
        if "default" in given:
            count += count_values(given["default"])
    return count


def _mapping(given: object) -> Mapping[str, object]:
    return given if isinstance(given, Mapping) else {}


_FIELDS = pydantic.TypeAdapter(tuple[SignatureField, ...], config=ConfigDict(defer_build=True))


def _object_schema(fields: tuple[SignatureField, ...]) -> dict[str, Any]:
    definitions = SharedDefinitions()
    return document(definitions.properties(fields), definitions)


def _validate(
    model: type[pydantic.BaseModel], values: Mapping[str, Any], raises: type[InvalidValues]
) -> dict[str, Any]:
    try:
        valid = model.model_validate(dict(values)).model_dump(mode="json", by_alias=True, exclude_unset=True)
    except pydantic.ValidationError as error:
        raise raises(problems(error)) from None
    try:
        suspect = b"\\u0000" in to_json(valid)
    except ValueError:  # not valid Unicode
        suspect = True
    if suspect:
        found = [Problem(name, reason) for name, value in valid.items() if (reason := unstorable(value))]
        if found:
            raise raises(found)
    return valid


def unstorable(value: object) -> str | None:
    """Why a JSON value cannot be stored or sent; None if it can."""
    match value:
        case str():
            if "\x00" in value:
                return "holds the character U+0000, which cannot be stored: remove it"
            try:
                value.encode()
            except UnicodeEncodeError:
                return "holds characters that are not valid Unicode"
        case float() if not math.isfinite(value):
            return "holds a number that is not finite"
        case dict():
            return next((reason for pair in value.items() for part in pair if (reason := unstorable(part))), None)
        case list() | tuple():
            return next((reason for item in value if (reason := unstorable(item))), None)
    return None

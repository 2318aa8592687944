"""Converts a class derived from `dspy.Signature` to data. Does not import DSPy.

The Python of a DSPy class is converted to data (`dspex.signatures.types`), or refused:

| in the class                                      | in the signature                                          |
|---------------------------------------------------|-----------------------------------------------------------|
| str, int, float, bool, list[T], dict[str, T],     | the type of that name                                     |
| Any, list, dict                                   |                                                           |
| date, datetime, time, timedelta, UUID, Decimal,   | text with a format                                        |
| AnyUrl, HttpUrl, EmailStr                         |                                                           |
| Optional[T], T | None                             | the type or null; such an input may be left out           |
| Union[T, U], T | U, Field(discriminator="kind")   | anyOf; oneOf with a discriminator                         |
| tuple[T, U], set[T]                               | an array with prefixItems, or with uniqueItems            |
| tuple[T, ...], Sequence[T], frozenset[T],         | list[T], set[T], dict[str, T]: the values are the same, a |
| Mapping[str, T]                                   | prompt may have the other name, which is a loss           |
| Literal[...], an Enum's values                    | enum; an Enum's name is its title                         |
| a pydantic model                                  | an object, of its fields by their aliases, with their     |
|                                                   | defaults; its name is the title, its docstring and those  |
|                                                   | of its fields are descriptions                            |
| ge, le, gt, lt, multiple_of, min_length, pattern  | minimum, maximum, ..., minLength or minItems, pattern     |
| desc, the docstring, a default of an input        | description, instructions, default                        |
| dspy.Image, dspy.Audio, dspy.File, dspy.History   | text with a format, and an object with one; inputs only   |
| validators and serializers of one's own           | lost, and named (`own_rules.py`)                          |
| other classes, keys that are not str              | InvalidSignature: it names the field and the type         |

Converting a signature to DSPy's class (`adapters.native.signatures`) and back keeps fields, types, constraints,
descriptions and instructions. It loses what DSPy's class cannot represent or distinguish:
- name, module, version, and the defaults of inputs;
- the descriptions of a field's own type beside the field's, of list items, map values and what is in an optional;
- an enum of texts alone is a string with an enum afterwards, and an optional of an optional is one;
- a property of an object without a title that may be left out is optional afterwards: it may be null as well;
- instructions lose their indentation and the white space around them; none and empty ones are the same.
"""

from __future__ import annotations

import inspect
import math
import re
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import Enum
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

import annotated_types
from pydantic import AllowInfNan, AnyHttpUrl, BaseModel, EmailStr, HttpUrl, Strict, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import to_jsonable_python

from dspex.errors import InvalidSignature, Problem
from dspex.model import problems
from dspex.signatures import own_rules
from dspex.signatures.annotations import Later, object_model
from dspex.signatures.field import SignatureField
from dspex.signatures.formats import OBJECTS as FORMATS
from dspex.signatures.named_classes import NamedClasses
from dspex.signatures.signature import MAX_TYPES, Signature
from dspex.signatures.types import MAX_DEPTH

_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}", re.ASCII)
_MAX_LENGTH = 200

_Schema = dict[str, Any]


class _Inexpressible(Exception):
    """A part of a class that cannot be converted to data."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.problem = Problem(field, message)


def signature_of(signature: Any, *, name: str | None = None, module: str | None = None) -> Signature:
    """Convert a class derived from `dspy.Signature` to data.

    Args:
        name: of the signature; None: derived from its fields.

    Raises:
        InvalidSignature: fields cannot be converted. The text names each, with its type.
    """
    wrong: list[Problem] = []
    lost: list[Problem] = []
    converted: dict[str, tuple[_Schema, NamedClasses]] = {}
    for field, info in signature.fields.items():
        classes = NamedClasses()
        try:
            converted[field] = _field(field, info, _Place(field, classes, lost)), classes
        except _Inexpressible as error:
            wrong.append(error.problem)
    extents = [classes.extent(data["type"]) for data, classes in converted.values()]
    all_named = sum(one.types for one in extents) > MAX_TYPES or any(one.depth > MAX_DEPTH for one in extents)
    read: dict[str, SignatureField] = {}
    for field, (data, classes) in converted.items():
        schema, definitions = classes.written(data["type"], all_named=all_named)
        try:
            read[field] = SignatureField.model_validate(data | {"type": schema, "$defs": definitions})
        except ValidationError as error:
            wrong += problems(error, (field,))
    if wrong:
        raise InvalidSignature(wrong)
    inputs, outputs = ([read[name] for name in each] for each in (signature.input_fields, signature.output_fields))
    texts = ({} if name is None else {"name": name}) | {"module": module, "instructions": _instructions(signature)}
    return Signature.parse({**texts, "inputs": inputs, "outputs": outputs}).losing(dict.fromkeys(lost))


def _instructions(signature: Any) -> str | None:
    """The docstring, unless it is DSPy's default sentence."""
    text = str(signature.instructions)
    inputs, outputs = (", ".join(f"`{name}`" for name in s) for s in (signature.input_fields, signature.output_fields))
    return None if text in ("", f"Given the fields {inputs}, produce the fields {outputs}.") else text


def _field(name: str, info: FieldInfo, place: _Place) -> _Schema:
    data: _Schema = {"name": name, "type": _of_field(info, place)}
    extra = info.json_schema_extra if isinstance(info.json_schema_extra, dict) else {}
    description = extra.get("desc")
    if description == f"${{{name}}}":  # DSPy's default description
        description = info.description
    if description:
        data["description"] = description
    if not info.is_required():
        default = _default(name, info)
        if not (default is None and "anyOf" in data["type"]):  # an optional input that is absent is null anyway
            data["default"] = default
    return data


def _default(name: str, info: FieldInfo) -> Any:
    try:
        return to_jsonable_python(info.get_default(call_default_factory=True), by_alias=True)
    except Exception as error:  # noqa: BLE001  # a factory is their code
        raise _Inexpressible(name, f"its default raised {type(error).__name__}: use a value of JSON types") from None


def _examples(name: str, given: list[Any]) -> Any:
    try:
        return to_jsonable_python(given, by_alias=True)
    except Exception as error:  # noqa: BLE001  # it may be of any class of theirs
        raise _Inexpressible(name, f"its examples are no JSON ({type(error).__name__})") from None


class _Place(NamedTuple):
    """The place of a type: its path, the classes of its field, what is lost, and the names for types around it."""

    path: str
    classes: NamedClasses
    lost: list[Problem]
    aliases: tuple[Any, ...] = ()

    def inside(self, suffix: str) -> _Place:
        return self._replace(path=self.path + suffix)

    def lose(self, what: str) -> None:
        self.lost.append(Problem(self.path, what))

    def refuse(self, why: str) -> _Inexpressible:
        return _Inexpressible(self.path, why)


def _of_field(info: FieldInfo, place: _Place) -> _Schema:
    schema = _schema(info.annotation, info.metadata, place)
    return _told_apart(schema, info.discriminator, place) if info.discriminator else schema


def _schema(annotation: Any, metadata: Iterable[Any], place: _Place) -> _Schema:
    """Convert an annotation and its metadata to a type (`dspex.signatures.types`)."""
    found = list(metadata)
    while True:
        if get_origin(annotation) is Annotated:
            annotation, *inner = get_args(annotation)
            later = next((item for item in inner if isinstance(item, Later)), None)
            if later is None:
                found = [*inner, *found]
            else:
                annotation = later.annotation
        elif hasattr(annotation, "__supertype__"):  # NewType
            annotation = annotation.__supertype__
        elif hasattr(annotation, "__value__"):  # `type Name = ...`
            if annotation in place.aliases:
                raise place.refuse(f"{_called(annotation)} refers to itself without a pydantic model between: use one")
            place = place._replace(aliases=(*place.aliases, annotation))
            annotation = annotation.__value__
        else:
            break
    schema = _unconstrained(annotation, place)
    by = next((item.discriminator for item in found if isinstance(item, FieldInfo) and item.discriminator), None)
    if by is not None:
        schema = _told_apart(schema, by, place)
    limited = schema
    while "anyOf" in limited and len(limited["anyOf"]) == 2 and limited["anyOf"][1] == {"type": "null"}:
        limited = limited["anyOf"][0]
    for limit, value in _limits(found, place):
        _constrain(limited, limit, value, annotation, place)
    for item in found:
        if isinstance(item, FieldInfo):
            _describe(schema, item.description)
    return schema


def _describe(schema: _Schema, description: str | None) -> None:
    """Describe the place of a type. What describes the class that stands there is its docstring."""
    if description:
        if "title" in schema:
            schema.setdefault("docstring", schema.get("description", ""))
        schema["description"] = description


def _unconstrained(annotation: Any, place: _Place) -> _Schema:
    for known, schema in _SCALARS:
        if annotation is known:
            return dict(schema)
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return _optional(_enum([value for value in arguments if value is not None], annotation, place), arguments)
    if origin in (Union, types.UnionType):
        return _union(arguments, place)
    nearest = list if origin is tuple and arguments[-1:] == (...,) else _NEAREST.get(origin)
    if nearest is not None and arguments:
        place.lose(f"{_called(annotation)} is kept as {nearest.__name__}[...], and shown as that")
        return _container(annotation, nearest, arguments if nearest is dict else arguments[:1], place)
    if origin in (list, dict, set, tuple):
        return _container(annotation, origin, arguments, place)
    if isinstance(annotation, type) and origin is None:
        if issubclass(annotation, Enum):
            return (
                _class_of(annotation)
                | _enum([member.value for member in annotation], annotation, place)
                | _names(annotation)
            )
        if issubclass(annotation, BaseModel) and not _is_of_dspy(annotation):
            return place.classes.ref(annotation, lambda: _object(annotation, place._replace(aliases=())))
        if (annotation.__module__, annotation.__qualname__) in _OF_DSPY:
            return dict(_OF_DSPY[annotation.__module__, annotation.__qualname__])
    raise _unknown(annotation, place)


def _unknown(annotation: Any, place: _Place) -> _Inexpressible:
    return place.refuse(
        f"{_called(annotation)} cannot be kept as data: use str, int, float, bool, Any, Literal[...], list[...], "
        "dict[str, ...], tuple[...], set[...], Union[...], Optional[...], a pydantic model, or a date, datetime, time, "
        "timedelta, UUID, Decimal, AnyUrl"
    )


def _container(annotation: Any, origin: Any, arguments: tuple[Any, ...], place: _Place) -> _Schema:
    if origin in (list, dict) and not arguments:
        return {"type": "array" if origin is list else "object"}
    if origin is list:
        return {"type": "array", "items": _schema(arguments[0], (), place.inside("[]"))}
    if origin is set:
        return {"type": "array", "items": _schema(arguments[0], (), place.inside("[]")), "uniqueItems": True}
    if origin is tuple and arguments and ... not in arguments:
        items = [_schema(one, (), place.inside(f"[{number}]")) for number, one in enumerate(arguments)]
        return {"type": "array", "prefixItems": items, "minItems": len(items), "maxItems": len(items)}
    if origin is dict:
        if arguments[0] is not str:
            raise place.refuse(f"{_called(annotation)} has keys that are not str: use dict[str, ...]")
        return {"type": "object", "additionalProperties": _schema(arguments[1], (), place.inside("{}"))}
    raise _unknown(annotation, place)


_NEAREST: Mapping[Any, Any] = {frozenset: set, Sequence: list, Mapping: dict}
"""What has the same values in JSON."""

_HTTP = {"type": "string", "format": "uri", "pattern": "^[Hh][Tt][Tt][Pp][Ss]?:"}
_SCALARS: list[tuple[Any, _Schema]] = [
    (str, {"type": "string"}),
    (int, {"type": "integer"}),
    (float, {"type": "number"}),
    (bool, {"type": "boolean"}),
    (Any, {}),
    (list, {"type": "array"}),
    (dict, {"type": "object"}),
    *((kind, {"type": "string", "format": form}) for form, kind in FORMATS.items()),
    (EmailStr, {"type": "string", "format": "email"}),
    *((kind, _HTTP | {"title": kind.__name__}) for kind in (HttpUrl, AnyHttpUrl)),
]

_OF_DSPY: Mapping[tuple[str, str], _Schema] = {
    ("dspy.adapters.types.image", "Image"): {"type": "string", "format": "image"},
    ("dspy.adapters.types.audio", "Audio"): {"type": "string", "format": "audio"},
    ("dspy.adapters.types.file", "File"): {"type": "string", "format": "file"},
    ("dspy.adapters.types.history", "History"): {"type": "object", "format": "history"},
}
"""By their names, as importing DSPy takes time."""


def _union(arguments: tuple[Any, ...], place: _Place) -> _Schema:
    several = sum(one is not types.NoneType for one in arguments) > 1
    choices = [
        {"type": "null"} if one is types.NoneType else _schema(one, (), place.inside(f"<{number}>" if several else ""))
        for number, one in enumerate(arguments, 1)
    ]
    some = [choice for choice in choices if choice != {"type": "null"}]
    return _optional(some[0], arguments) if len(some) == 1 else {"anyOf": choices}


def _told_apart(schema: _Schema, by: Any, place: _Place) -> _Schema:
    """A union whose types a property tells apart."""
    if not isinstance(by, str):
        raise place.refuse("a discriminator that is code cannot be kept: name a property")
    choices = [choice for choice in schema.get("anyOf", ()) if choice != {"type": "null"}]
    one = {"oneOf": choices, "discriminator": {"propertyName": by}}
    return {"anyOf": [one, {"type": "null"}]} if len(choices) < len(schema.get("anyOf", ())) else one


def _optional(schema: _Schema, arguments: tuple[Any, ...]) -> _Schema:
    if {None, types.NoneType}.isdisjoint(arguments) or "anyOf" in schema:
        return schema
    return {"anyOf": [schema, {"type": "null"}]}


def _enum(values: list[Any], annotation: Any, place: _Place) -> _Schema:
    if not values or not all(type(value) in (str, int, bool) for value in values):
        raise place.refuse(f"{_called(annotation)} holds what is not text, a whole number, True or False")
    return {"enum": values} | ({"type": "string"} if all(isinstance(value, str) for value in values) else {})


def _names(kind: type[Enum]) -> _Schema:
    names = [member.name for member in kind]
    return {"names": names} if all(map(_PLAIN.fullmatch, names)) else {}


def _is_of_dspy(model: type[BaseModel]) -> bool:
    return any(base.__module__.partition(".")[0] == "dspy" for base in model.__mro__)


def _object(model: type[BaseModel], place: _Place) -> _Schema:
    if why := own_rules.refused(model):
        raise place.refuse(f"{_called(model)} {why}")
    for said in own_rules.lost(model):
        place.lose(f"{_called(model)} {said}")
    properties: _Schema = {}
    required: list[str] = []
    for name, info in model.model_fields.items():
        key = _key(name, info, place)
        properties[key] = _of_field(info, place.inside(f".{key}"))
        _describe(properties[key], info.description)
        if key != name and not _made_of_data(model) and _PLAIN.fullmatch(name):
            properties[key]["attribute"] = name
        if info.title and "title" not in properties[key]:
            properties[key]["title"] = info.title
        if info.examples:
            properties[key]["examples"] = _examples(key, info.examples)
        for word in own_rules.lost_of_field(info):
            place.inside(f".{key}").lose(f"{word} is not shown")
        if info.is_required():
            required.append(key)
        elif info.default_factory is None and (default := _default(key, info)) is not None:
            properties[key]["default"] = default
    schema: _Schema = {"type": "object", "properties": properties, "required": required}
    if model.model_config.get("extra") == "forbid":
        schema["additionalProperties"] = False
    return _class_of(model) | schema


def _class_of(kind: type) -> _Schema:
    """What the LM is told of a class: its name and its docstring."""
    documented = vars(kind).get("__doc__")
    described = {"description": inspect.cleandoc(documented)} if documented else {}
    return described if _made_of_data(kind) else {"title": kind.__name__} | described


def _made_of_data(kind: type) -> bool:
    """Whether a class was made of a type without a title, and has a name that says nothing."""
    return kind.__module__ == object_model.__module__


def _key(name: str, info: FieldInfo, place: _Place) -> str:
    """The JSON name of a property."""
    read, written = info.validation_alias or name, info.serialization_alias or name
    if not isinstance(read, str) or read != written:
        raise place.refuse(f"its {name} has several aliases: only one name can be kept")
    return read


# Constraints

_NUMBER = {"ge": "minimum", "le": "maximum", "gt": "exclusiveMinimum", "lt": "exclusiveMaximum"}
_KEYWORDS: Mapping[str, Mapping[str, str]] = {
    "string": {"min_length": "minLength", "max_length": "maxLength", "pattern": "pattern"},
    "array": {"min_length": "minItems", "max_length": "maxItems"},
    "integer": _NUMBER | {"multiple_of": "multipleOf"},
    "number": _NUMBER,
}
_LIMITS: Mapping[type, str] = {
    annotated_types.Ge: "ge",
    annotated_types.Gt: "gt",
    annotated_types.Le: "le",
    annotated_types.Lt: "lt",
    annotated_types.MultipleOf: "multiple_of",
    annotated_types.MinLen: "min_length",
    annotated_types.MaxLen: "max_length",
}
_TIGHTER: Mapping[str, Callable[..., Any]] = {"le": min, "lt": min, "max_length": min, "multiple_of": math.lcm}


def _limits(metadata: Iterable[Any], place: _Place) -> Iterator[tuple[str, Any]]:
    """The constraints in the metadata of a type, by pydantic's names."""
    for item in metadata:
        limit = _LIMITS.get(type(item))
        if limit is not None:
            yield limit, getattr(item, limit)
        elif isinstance(item, FieldInfo):
            yield from _limits(item.metadata, place)
        elif isinstance(item, annotated_types.GroupedMetadata):
            yield from _limits(item, place)
        elif list(_given(item)) == ["pattern"]:
            yield "pattern", item.pattern
        elif not _harmless(item):
            said = own_rules.lost_of(item)
            if said is None:
                rules = list(_given(item))
                raise place.refuse(f"{', '.join(rules) or _called(type(item))} cannot be kept as data: remove it")
            place.lose(said)


def _given(item: Any) -> dict[str, Any]:
    """The constraints in a metadata object with several, such as `pattern`."""
    return {key: value for key, value in getattr(item, "__dict__", {}).items() if value is not None}


def _harmless(item: Any) -> bool:
    """Whether it can be ignored, as we coerce nothing and numbers are always finite."""
    if isinstance(item, Strict | AllowInfNan):
        return True
    if isinstance(item, annotated_types.BaseMetadata):
        rules = _given(item)
        return bool(rules) and set(rules) <= {"allow_inf_nan", "strict"}
    return not hasattr(item, "__get_pydantic_core_schema__")


def _constrain(schema: _Schema, limit: str, value: Any, annotation: Any, place: _Place) -> None:
    keyword = None if "enum" in schema else _KEYWORDS.get(schema.get("type", ""), {}).get(limit)
    if keyword is None:
        place.lose(f"{limit} is not checked: it cannot be kept for {_called(annotation)}")
        return
    if limit == "pattern" and not isinstance(value, str):
        raise place.refuse("a compiled pattern cannot be kept: give its text")  # pydantic runs it by Python's engine
    if keyword in schema and limit == "pattern":
        raise place.refuse("has several patterns: only one can be kept")
    if isinstance(value, float) and value.is_integer() and schema["type"] == "integer":
        value = int(value)
    if keyword in schema:
        value = _TIGHTER.get(limit, max)(schema[keyword], value)
    schema[keyword] = value


def _called(annotation: Any) -> str:
    """The name of a type in an error."""
    if isinstance(annotation, type) and get_origin(annotation) is None:
        place = annotation.__module__
        return annotation.__qualname__ if place == "builtins" else f"{place}.{annotation.__qualname__}"
    return str(annotation).replace("typing.", "")[:_MAX_LENGTH]

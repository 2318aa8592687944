"""Converts a field's type, which is data, into the Python annotation that pydantic and DSPy use."""

from __future__ import annotations

import threading
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal, NamedTuple, Optional, Union, get_origin

import pydantic
from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    FailFast,
    Field,
    GetCoreSchemaHandler,
    JsonValue,
    Strict,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    TypeAdapter,
)
from pydantic_core import CoreSchema, PydanticCustomError
from typing_extensions import TypeAliasType

from dspex.ids import canonical_json
from dspex.scalars import WHOLE, whole
from dspex.signatures import attachments, formats, media
from dspex.signatures.classes import attribute, deferred, enum_class, object_class
from dspex.signatures.field import SignatureField
from dspex.signatures.references import RefType
from dspex.signatures.scalar_types import BooleanType, ConstType, EnumType, IntegerType, NumberType, Scalar, StringType
from dspex.signatures.types import (
    AnyArrayType,
    AnyMapType,
    AnyType,
    ArrayType,
    FieldType,
    HistoryType,
    MapType,
    NullType,
    ObjectType,
    OptionalType,
    TaggedUnionType,
    TupleType,
    UnionType,
    tags_of,
)
from dspex.signatures.unions import by_kind, by_property


class _First(FailFast):
    """pydantic's `FailFast`, made hashable: `typing` hashes the argument of `Optional`.

    For a list in a message, only the first wrong item is reported: an error takes a kilobyte, and a list may have half
    a million items.
    """

    def __hash__(self) -> int:
        return hash(type(self))


_FIRST = _First()


class Reading(NamedTuple):
    """How values are read.

    Attributes:
        strict: refuse values that need coercion (`"3"` for an integer).
        objects: make Python's objects of texts with a format: a `datetime.date` of a date.
    """

    strict: bool
    objects: bool


JSON = Reading(strict=True, objects=False)
"""Values of a message: JSON in, the same JSON out."""

OBJECTS = Reading(strict=True, objects=True)
"""JSON in, objects out."""

LENIENT = Reading(strict=False, objects=True)
"""An LM's answer, as DSPy reads it with a class."""


def annotation(field_type: FieldType, reading: Reading = JSON, *, name: str = "Value") -> Any:
    """The Python annotation of a type, with its constraints.

    Args:
        name: the class name of a nested object that has no title.
    """
    bare, limits = unconstrained(field_type, reading, name=name), constraints(field_type)
    inner = field_type
    while isinstance(inner, OptionalType):
        inner = inner.anyOf[0]
    if reading.strict and isinstance(inner, NumberType):
        limits["allow_inf_nan"] = False
    if reading.strict and isinstance(inner, TaggedUnionType):
        limits = {}  # it tells its types apart by itself
    limited = Annotated[bare, Field(**limits)] if limits else bare
    return Annotated[limited, WHOLE] if reading.strict and isinstance(inner, IntegerType) else limited


def constraints(field_type: FieldType) -> dict[str, Any]:
    """The type's own constraints as keywords of `pydantic.Field` (`ge`, `max_length`, ...).

    Without those of the text of a format, as a date, for instance, has no length.
    """
    if isinstance(field_type, OptionalType):
        return constraints(field_type.anyOf[0])
    if isinstance(field_type, TupleType):
        return {}  # it has as many items as its types
    if isinstance(field_type, TaggedUnionType):
        name = field_type.discriminator.propertyName
        return {"discriminator": attribute(field_type.objects[0].properties[name].attribute or name, ())}
    return {} if isinstance(field_type, StringType) and field_type.format is not None else _limits(field_type)


def _limits(field_type: FieldType) -> dict[str, Any]:
    given = field_type.model_dump(include=set(_KEYWORDS))
    return {keyword: given[key] for key, keyword in _KEYWORDS.items() if key in given}


def unconstrained(field_type: FieldType, reading: Reading = JSON, *, name: str = "Value") -> Any:
    """The Python annotation of a type without its own constraints; its members keep theirs."""
    strict = reading.strict
    if type(field_type) in _PLAIN:
        return _PLAIN[type(field_type)][not strict]
    match field_type:
        case RefType():
            return _named(field_type, reading)
        case StringType(enum=None):
            return _text(field_type, reading)
        case StringType(enum=values) | EnumType(enum=values):
            return _enum(field_type, values or (), reading)
        case ConstType(const=value):
            return _literal((value,), reading)
        case ArrayType():
            return _array(field_type, reading, name)
        case MapType():
            value = annotation(field_type.additionalProperties, reading, name=f"{name}Value")
            return Annotated[dict[_KEY, value], Strict()] if strict else dict[str, value]  # type: ignore[valid-type]
        case OptionalType(anyOf=(inner, _)):
            return Optional[unconstrained(inner, reading, name=name)]  # noqa: UP045
        case TupleType() | UnionType() | TaggedUnionType():
            return _several(field_type, reading, name)
        case ObjectType():
            if field_type.title is None or strict:
                return _nested(field_type, reading, name=name)
            return object_class(field_type, partial(annotation, reading=reading))
    raise AssertionError(field_type)


def _several(field_type: TupleType | UnionType | TaggedUnionType, reading: Reading, name: str) -> Any:
    match field_type:
        case TupleType(prefixItems=items):
            inner = tuple(annotation(item, reading, name=f"{name}Item{number}") for number, item in enumerate(items, 1))
            return Annotated[tuple[inner], BeforeValidator(_a_list)] if reading.strict else tuple[inner]  # type: ignore[valid-type]
        case UnionType(anyOf=choices):
            read = [
                None if isinstance(choice, NullType) else annotation(choice, reading, name=f"{name}Choice{number}")
                for number, choice in enumerate(choices, 1)
            ]
            if reading == JSON:
                return by_kind(list(zip(choices, read, strict=True)))
            return Union[tuple(read)]  # noqa: UP007
        case TaggedUnionType(oneOf=objects, discriminator=by):
            classes = [annotation(one, reading, name=f"{name}Choice{number}") for number, one in enumerate(objects, 1)]
            if not reading.strict:
                return Union[tuple(classes)]  # noqa: UP007
            tags = [tags_of(one, by.propertyName) for one in field_type.objects]
            return by_property(by.propertyName, list(zip(tags, classes, strict=True)))


def _array(field_type: ArrayType, reading: Reading, name: str) -> Any:
    item = annotation(field_type.items, reading, name=f"{name}Item")
    if field_type.uniqueItems and reading.objects and is_hashable(field_type.items):
        return set[item]  # type: ignore[valid-type]
    if not reading.strict:
        return list[item]  # type: ignore[valid-type]
    read = Annotated[list[item], Strict(), _FIRST]  # type: ignore[valid-type]
    return Annotated[read, AfterValidator(_all_different)] if field_type.uniqueItems else read


def is_hashable(field_type: FieldType) -> bool:
    """Whether the values, as Python reads them, may be the members of a set."""
    match field_type:
        case OptionalType(anyOf=(inner, _)):
            return is_hashable(inner)
        case TupleType(prefixItems=items):
            return all(map(is_hashable, items))
        case RefType():
            return field_type.known("is hashable", is_hashable)
        case _:
            scalars = StringType | IntegerType | NumberType | BooleanType | EnumType | ConstType
            return isinstance(field_type, scalars)


def _text(field_type: StringType, reading: Reading) -> Any:
    kind = field_type.format
    if kind is None:
        return StrictStr if reading.strict else str
    if kind == "image" or kind == "audio" or kind == "file":
        return media.annotation(kind)
    if not reading.strict:
        titled = formats.TITLED.get(field_type.title or "") if kind == "uri" else None
        return titled or formats.OBJECTS[kind]
    if reading.objects:
        return formats.read(kind)
    limits = _limits(field_type)
    return formats.checked(kind, Annotated[StrictStr, Field(**limits)] if limits else StrictStr)


def _enum(field_type: StringType | EnumType, values: tuple[Scalar, ...], reading: Reading) -> Any:
    made = None if field_type.title is None or reading.strict else enum_class(field_type)
    return _literal(values, reading) if made is None else made


def _literal(values: tuple[Scalar, ...], reading: Reading) -> Any:
    literal = Literal[values]  # type: ignore[valid-type]  # pyright: ignore[reportInvalidTypeForm]
    return Annotated[literal, BeforeValidator(_one_of(values))] if reading.strict else literal


def forget_types() -> None:
    """Clear the caches of `typing`, which keep 128 types of each kind, whatever their size."""
    for forget in getattr(typing, "_cleanups", ()):
        forget()


def object_model(name: str, fields: Iterable[SignatureField], reading: Reading = JSON) -> type[pydantic.BaseModel]:
    """A pydantic model of these fields, read and dumped by alias: no other key is allowed."""
    members: dict[str, Any] = {}
    for field in fields:
        default = ... if field.required else field.default
        members[attribute(field.name, members)] = (
            annotation(field.type, reading, name=field.name.title()),
            Field(default=default, alias=field.name),
        )
    return pydantic.create_model(name, __config__=_CONFIG, **members)


_CONFIG = ConfigDict(extra="forbid", allow_inf_nan=False, hide_input_in_errors=True, protected_namespaces=())


def _nested(field_type: ObjectType, reading: Reading, *, name: str) -> type[pydantic.BaseModel]:
    members: dict[str, Any] = {}
    for key, member in field_type.properties.items():
        inner = annotation(member, reading, name=f"{name}{key.title()}")
        required = key in field_type.required
        if not (required or reading.strict):
            inner = Optional[inner]  # an LM may write null for a member that it omits  # noqa: UP045
        default = ... if required else None
        members[attribute(key, members)] = (inner, Field(default=default, alias=key, description=member.description))
    return pydantic.create_model(name, __config__=_CONFIG | deferred(field_type), **members)


def _named(ref: RefType, reading: Reading) -> Any:
    """The annotation of what a reference names. Each is made once; what is being made already is looked up later."""
    made, key = ref.definitions.made, (ref.name, reading)
    if key in made:
        return made[key]
    making = _making.__dict__.setdefault("keys", set())
    this = (id(made), *key)
    if this in making:
        return Annotated[Any, Later(ref, reading)]
    making.add(this)
    try:
        bare = annotation(ref.target, reading, name=ref.name)
    finally:
        making.remove(this)
    # An alias, as a class is one already: pydantic describes and checks it once.
    is_class = isinstance(bare, type) and get_origin(bare) is None
    return made.setdefault(key, bare if is_class else _alias(ref.name, bare))


_alias: Callable[[str, Any], Any] = TypeAliasType


_making = threading.local()


@dataclass(frozen=True, eq=False)  # `typing` keeps what it was given: an equal one would be of another signature
class Later:
    """Stands for a type in a type that it contains."""

    ref: RefType
    reading: Reading

    @property
    def annotation(self) -> Any:
        """The type, which is there when all is made."""
        return _named(self.ref, self.reading)

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return handler.generate_schema(self.annotation)


MAX_NAMED = 50
"""How many values of an enum an error lists."""

MAX_SHOWN = 100
"""How many characters of each are shown."""

_KEYWORDS = {
    "minimum": "ge",
    "exclusiveMinimum": "gt",
    "maximum": "le",
    "exclusiveMaximum": "lt",
    "multipleOf": "multiple_of",
    "minLength": "min_length",
    "maxLength": "max_length",
    "minItems": "min_length",
    "maxItems": "max_length",
    "pattern": "pattern",
}
"""In the order in which people write them, as the LM sees it: a lower bound before an upper one."""


def _one_of(values: tuple[Scalar, ...]) -> Callable[[object], object]:
    """A check for one of the values. Unlike Python and its `Literal`, JSON distinguishes 1 and True."""
    allowed = {(type(value), value) for value in values}
    listed = ", ".join(map(_shown, values[:MAX_NAMED])) + (", ..." if len(values) > MAX_NAMED else "")
    text = {"text": f"input should be one of {listed}"}

    def check(value: object) -> object:
        value = whole(value)
        try:
            if (type(value), value) in allowed:
                return value
        except TypeError:  # not hashable: a list or an object
            pass
        # Not a ValueError: pydantic keeps that with its traceback, a kilobyte for each wrong value.
        raise PydanticCustomError("one_of", "{text}", text)

    return check


def _shown(value: Scalar) -> str:
    text = repr(value)
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."


def _a_list(value: object) -> object:
    if not isinstance(value, list):
        raise PydanticCustomError("list_type", "input should be a valid list")
    return value


_ANYTHING: TypeAdapter[Any] = TypeAdapter(Any, config=ConfigDict(defer_build=True))


def _all_different(items: list[Any]) -> list[Any]:
    seen: set[bytes] = set()
    for item in items:
        # Members that were not given count as absent. 1 and 1.0 are one number of JSON, 1 and true are two values.
        given = _ANYTHING.dump_python(item, mode="json", by_alias=True, exclude_unset=True, warnings=False)
        key = canonical_json(given)
        if key in seen:
            raise PydanticCustomError("unique_items", "items should be different from each other")
        seen.add(key)
    return items


def _unicode(key: str) -> str:
    try:
        key.encode()
    except UnicodeEncodeError:
        raise ValueError("a key holds characters that are not valid Unicode") from None
    return key


_KEY = Annotated[StrictStr, AfterValidator(_unicode)]

_PLAIN: Mapping[type[Any], tuple[Any, Any]] = {
    IntegerType: (StrictInt, int),
    NumberType: (StrictFloat, float),
    BooleanType: (StrictBool, bool),
    AnyType: (JsonValue, Any),
    AnyArrayType: (Annotated[list[JsonValue], Strict(), _FIRST], list),
    AnyMapType: (Annotated[dict[_KEY, JsonValue], Strict()], dict),
    HistoryType: (attachments.Turns, attachments.Turns),
}
"""The annotations, strict and lenient, of types that hold no others."""

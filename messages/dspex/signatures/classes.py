"""The classes that DSPy is shown for types with titles: as near to those that a signature was read from as data tells.

DSPy writes their names and pydantic's JSON Schema of them into prompts. They only read what an LM wrote; a value is
valid by the signature (`annotations.py`).

What is not known, and may differ from the class of the author: the module of two classes of one name, which pydantic
writes before the name; attributes of a field beyond title, description, default, examples and constraints; a title of
its own in the configuration of a model.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Callable, Container
from enum import Enum
from typing import Any
from weakref import WeakValueDictionary

import pydantic
from pydantic import ConfigDict, Field, model_validator

from dspex.signatures.definitions import is_circular, refs_in
from dspex.signatures.formats import TITLED
from dspex.signatures.media import KINDS
from dspex.signatures.references import RefType
from dspex.signatures.scalar_types import EnumType, StringType
from dspex.signatures.types import (
    AnyType,
    ArrayType,
    FieldType,
    MapType,
    NullType,
    ObjectType,
    OptionalType,
    TaggedUnionType,
    TupleType,
    UnionType,
    resolved,
    takes_null,
)

_enums: WeakValueDictionary[str, type[Enum]] = WeakValueDictionary()
_models: WeakValueDictionary[str, type[pydantic.BaseModel]] = WeakValueDictionary()
"""By their types: two places of one type have one class, which a prompt describes once."""


def enum_class(field_type: StringType | EnumType) -> type[Enum] | None:
    """The class of an enum with a title. None where Python can make none: it takes 1 and true for one value."""
    values, name = field_type.enum or (), field_type.title or ""
    if len(set(values)) != len(values):
        return None
    key = _key(field_type)
    found = _enums.get(key)
    if found is not None:
        return found
    names = field_type.names or [f" {number}" for number in range(len(values))]
    try:
        made: Any = Enum(name, list(zip(names, values, strict=True)), module=__name__)  # type: ignore[misc]
    except (TypeError, ValueError):  # a name that Python's enums use themselves
        return None
    made.__doc__ = _docstring(field_type)
    kept: type[Enum] = _enums.setdefault(key, made)
    return kept


def object_class(field_type: ObjectType, annotation: Callable[..., Any]) -> type[pydantic.BaseModel]:
    """The class of an object with a title.

    Args:
        annotation: makes the annotation of a property from its type.
    """
    key = _key(field_type)
    found = _models.get(key)
    return _models.setdefault(key, _model(field_type, annotation)) if found is None else found


def has_objects(field_type: FieldType) -> bool:
    """Whether DSPy is shown values of a type as Python's objects: of a class that was made here, a format, a tuple."""
    match field_type:
        case ArrayType(items=inner) | MapType(additionalProperties=inner):
            return has_objects(inner)
        case OptionalType(anyOf=several) | UnionType(anyOf=several) | TaggedUnionType(oneOf=several):
            return any(has_objects(one) for one in several if not isinstance(one, NullType))
        case StringType(format=str() as name):
            return name not in KINDS
        case TupleType():
            return True
        case RefType():
            return field_type.known("has objects", has_objects)
        case _:
            return is_class(field_type)


def is_class(field_type: FieldType) -> bool:
    """Whether the title of a type is the name of a class."""
    field_type = resolved(field_type)
    if isinstance(field_type, StringType) and field_type.enum is None:
        return False
    return field_type.title is not None and isinstance(field_type, ObjectType | StringType | EnumType)


def attribute(name: str, taken: Container[str]) -> str:
    """The attribute for a JSON name, which may be any text: `copy`, for instance, is a method of pydantic's models."""
    name = re.sub(r"\W", "_", name)
    name = name if name[0].isalpha() else f"f{name}"  # those that begin with _ are no fields
    while hasattr(pydantic.BaseModel, name) or keyword.iskeyword(name) or name in taken:
        name += "_"
    return name


def _model(field_type: ObjectType, annotation: Callable[..., Any]) -> type[pydantic.BaseModel]:
    members: dict[str, Any] = {}
    for key, member in field_type.properties.items():
        details: dict[str, Any] = {"alias": key, "description": _said_here(member)}
        if member.examples is not None:
            details["examples"] = list(member.examples)
        if member.title not in (None, *TITLED) and (isinstance(member, RefType) or not is_class(member)):
            details["title"] = member.title
        if key not in field_type.required:
            # Without a default, the author's class has a function for it: pydantic shows none.
            known = member.default is not None or takes_null(member) or isinstance(resolved(member), AnyType)
            details |= {"default": member.default} if known else {"default_factory": _made_anew(member)}
        kind = annotation(member, name=key.title())
        members[attribute(member.attribute or key, members)] = (kind, Field(**details))
    config = ConfigDict(protected_namespaces=(), hide_input_in_errors=True, allow_inf_nan=False)
    config |= deferred(field_type)
    if field_type.additionalProperties is False:
        config["extra"] = "forbid"
    made: type[pydantic.BaseModel] = pydantic.create_model(  # pyright: ignore[reportCallIssue]
        field_type.title or "",
        __config__=config,
        __doc__=_docstring(field_type),
        __module__=__name__,
        __validators__={"left_out": model_validator(mode="before")(_without_nulls(field_type))},  # type: ignore[dict-item]
        **members,
    )
    return made


def _without_nulls(field_type: ObjectType) -> Callable[[Any], Any]:
    """An LM may write null for a property that it leaves out."""
    omitted = {
        key
        for key, member in field_type.properties.items()
        if key not in field_type.required and not takes_null(member)
    }

    def left_out(value: Any) -> Any:
        if isinstance(value, dict) and omitted:
            return {key: item for key, item in value.items() if item is not None or key not in omitted}
        return value

    return left_out


def _key(field_type: FieldType) -> str:
    place = {"default"} if getattr(field_type, "docstring", None) is None else {"default", "description"}
    refs = {ref.name: ref.definitions.keys[ref.name] for ref in refs_in(field_type)}
    return "\n".join([field_type.model_dump_json(exclude=place), *refs.values()])


def _docstring(field_type: ObjectType | StringType | EnumType) -> str | None:
    return (field_type.description if field_type.docstring is None else field_type.docstring) or None


def _said_here(member: FieldType) -> str | None:
    """The description of the place: that of the class is its docstring."""
    if isinstance(member, RefType):
        return member.description
    return None if is_class(member) and getattr(member, "docstring", None) is None else member.description


def deferred(field_type: ObjectType) -> ConfigDict:
    """The configuration of a class that contains itself: pydantic looks at it when all that it needs is made."""
    return ConfigDict(defer_build=True) if is_circular(field_type) else ConfigDict()


def _made_anew(member: FieldType) -> Callable[[], Any]:
    member = resolved(member)
    return list if isinstance(member, ArrayType) else dict if isinstance(member, MapType) else _nothing


def _nothing() -> None:
    return None

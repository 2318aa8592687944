"""Rules of a class that no data can say: validators, serializers, and what its configuration changes.

What they check is lost, and named: more values are valid then, and the prompt stays that of the class. Rules by which
values would be others altogether (a type that a function reads in the place of pydantic) are refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import annotated_types
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    PlainSerializer,
    RootModel,
    WrapSerializer,
    WrapValidator,
)
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

_NOT_APPLIED = (
    "coerce_numbers_to_str",
    "str_max_length",
    "str_min_length",
    "str_strip_whitespace",
    "str_to_lower",
    "str_to_upper",
)
_CHANGES = {"strip_whitespace", "to_lower", "to_upper", "coerce_numbers_to_str", "ascii_only"}
_NOT_SHOWN = ("field_title_generator", "json_schema_extra", "model_title_generator", "title")
_NOT_WRITTEN = ("json_encoders", "ser_json_bytes", "ser_json_inf_nan", "ser_json_timedelta", "ser_json_temporal")


def refused(model: type[BaseModel]) -> str | None:
    """Why a model cannot be data at all."""
    if issubclass(model, RootModel):
        return "is a RootModel: use the type in it"
    if any("__get_pydantic_core_schema__" in vars(base) for base in _own(model)):
        return "reads values in a way of its own (__get_pydantic_core_schema__), which cannot be kept as data"
    decorators = model.__pydantic_decorators__
    for name, found in decorators.field_validators.items():
        if found.info.mode == "plain" or _reads_another(found.info):
            return f"reads {_names(found.info.fields)} by its validator {name} alone, which cannot be kept as data"
    return None


def lost(model: type[BaseModel]) -> Iterator[str]:
    """What is lost of the rules of a model."""
    decorators = model.__pydantic_decorators__
    for kind in ("field_validators", "validators"):
        for name, found in getattr(decorators, kind).items():
            yield f"checks {_names(found.info.fields)} by its validator {name}, which is not run"
    for kind in ("model_validators", "root_validators"):
        for name in getattr(decorators, kind):
            yield f"has the validator {name}, which is not run"
    for name, found in decorators.field_serializers.items():
        yield f"writes {_names(found.info.fields)} by its serializer {name}, which is not run"
    for name in decorators.model_serializers:
        yield f"has the serializer {name}, which is not run"
    for name in decorators.computed_fields:
        yield f"computes {name}, which is neither shown nor kept"
    yield from _methods_and_settings(model)


def _methods_and_settings(model: type[BaseModel]) -> Iterator[str]:
    for method in ("model_post_init", "__get_pydantic_json_schema__", "__init__"):
        if any(method in vars(base) and _is_written(vars(base)[method]) for base in _own(model)):
            yield f"has a {method} of its own, which is not run"
    if model.model_config.get("extra") == "allow":
        yield "allows keys that it does not know (extra), which are refused, and the LM is not told of them"
    for words, what in ((_NOT_APPLIED, "applied"), (_NOT_SHOWN, "shown"), (_NOT_WRITTEN, "applied")):
        for word in words:
            if model.model_config.get(word):
                yield f"has {word} in its configuration, which is not {what}"


def lost_of_field(info: FieldInfo) -> Iterator[str]:
    """What is lost of the words of a model's field."""
    if info.json_schema_extra:
        yield "json_schema_extra"
    if info.deprecated:
        yield "deprecated"


def lost_of(item: Any) -> str | None:
    """What is lost of a rule in the metadata of a type; None: the type cannot be kept without it."""
    match item:
        case AfterValidator() | BeforeValidator() | WrapValidator():
            if _reads_another(item):
                return None
            return f"{type(item).__name__}({_called(item.func)}) is not run"
        case PlainSerializer() | WrapSerializer():
            return f"{type(item).__name__}({_called(item.func)}) is not run"
        case annotated_types.Predicate():
            return f"{type(item).__name__}({_called(item.func)}) is not checked"
        case annotated_types.Timezone() | annotated_types.Not():
            return f"{type(item).__name__} is not checked"
        case _:
            changes = [word for word, value in getattr(item, "__dict__", {}).items() if value is not None]
            return f"{', '.join(changes)} is not applied" if changes and set(changes) <= _CHANGES else None


def _own(model: type[BaseModel]) -> tuple[type, ...]:
    """The classes of a model that are not pydantic's."""
    return tuple(base for base in model.__mro__ if base.__module__.partition(".")[0] not in ("pydantic", "builtins"))


def _is_written(method: object) -> bool:
    """Whether somebody wrote a method, and not pydantic, which adds one to models with private attributes."""
    function = getattr(method, "__func__", method)
    return str(getattr(function, "__module__", "")).partition(".")[0] != "pydantic"


def _reads_another(rule: Any) -> bool:
    """Whether a validator takes values of another type, which the LM is told of."""
    return getattr(rule, "json_schema_input_type", PydanticUndefined) is not PydanticUndefined


def _names(of: tuple[str, ...]) -> str:
    return ", ".join(of)


def _called(function: Any) -> str:
    return str(getattr(function, "__name__", type(function).__name__))[:100]

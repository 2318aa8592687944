"""Images, audio, files and turns in a signature: where they may stand, and which turns fit it.

They are inputs: the field's type itself, an optional of it, or, except for turns, a list of either. A turn has values
of the signature's fields, each as valid as in an execution, and may have the `reasoning` of a `ChainOfThought`; it may
leave out any of them, or have null.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, FailFast, Field, JsonValue, Strict

from dspex.errors import InvalidInput, Problem
from dspex.signatures.field import SignatureField
from dspex.signatures.measures import members_of
from dspex.signatures.media import KINDS, MAX_ITEMS, Kind
from dspex.signatures.scalar_types import StringType, Type
from dspex.signatures.types import ArrayType, FieldType, HistoryType, NullType, OptionalType

MAX_TURNS: Final = 1_000
"""The longest history. Each turn is a message of the user and one of the LM."""

Change = Callable[[str, Kind, str], Any]
"""Makes something else of an image, audio or a file, from its path (`images.0`), its kind and the value."""


class Turns(BaseModel):
    """A history, as a value; the fields of its turns are checked by `checked`."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True, title="History")

    messages: Annotated[
        list[Annotated[dict[str, JsonValue], Strict(), Field(min_length=1)]],
        Strict(),
        FailFast(),
        Field(max_length=MAX_TURNS),
    ]


def kind_of(field_type: FieldType | NullType) -> Kind | None:
    """Whether the values of a field are images, audio or files, or lists of them."""
    match field_type:
        case StringType(format="image" | "audio" | "file" as kind):
            return kind
        case OptionalType(anyOf=(inner, _)) | ArrayType(items=inner):
            return kind_of(inner)
        case _:
            return None


def is_history(field_type: FieldType | NullType) -> bool:
    """Whether the values of a field are turns."""
    return isinstance(field_type, HistoryType) or (
        isinstance(field_type, OptionalType) and is_history(field_type.anyOf[0])
    )


def check_places(inputs: Iterable[SignatureField], outputs: Iterable[SignatureField]) -> None:
    """Check that there are images, audio, files and turns only where they may be.

    Raises:
        ValueError: the first that may not be there, by its field, and why.
    """
    for field in outputs:
        if found := _any_of(field):
            raise ValueError(f"output '{field.name}' has {found}: LMs answer in text, so only inputs have it")
    for field in inputs:
        allowed = is_history(field.type) or (kind_of(field.type) is not None and _is_flat(field.type))
        if not allowed and (found := _any_of(field)):
            lists = "" if found == "a history" else ", or a list of it"
            raise ValueError(f"input '{field.name}' has {found} inside of another type: make it an input itself{lists}")


def holders(inputs: Iterable[SignatureField]) -> tuple[SignatureField, ...]:
    """The inputs that have images, audio, files or turns."""
    return tuple(field for field in inputs if is_history(field.type) or kind_of(field.type))


def fields_of_turns(inputs: Iterable[SignatureField], outputs: Iterable[SignatureField]) -> tuple[SignatureField, ...]:
    """The fields that a turn may have."""
    known = {field.name: (field.type, field.defs) for field in (*inputs, *outputs) if not is_history(field.type)}
    known.setdefault("reasoning", (StringType(), None))
    return tuple(
        SignatureField.model_validate({"name": name, "type": OptionalType(anyOf=(kind, NullType())), "$defs": defs})
        for name, (kind, defs) in known.items()
    )


def mapped(
    fields: Iterable[SignatureField],
    turns: Iterable[SignatureField],
    values: Mapping[str, Any],
    change: Change,
    path: str = "",
) -> dict[str, Any]:
    """The values with all images, audio and files changed.

    Args:
        fields: those that hold them (`holders`).
        turns: those that hold them in a turn.
    """
    result = dict(values)
    for field in fields:
        value, place = values.get(field.name), path + field.name
        if value is None:
            continue
        kind = kind_of(field.type)
        if kind is not None:
            result[field.name] = _changed(value, kind, place, change)
        else:
            messages = [
                mapped(turns, (), turn, change, f"{place}.messages.{number}.")
                for number, turn in enumerate(value["messages"])
            ]
            result[field.name] = {"messages": messages}
    return result


def check_count(fields: Iterable[SignatureField], turns: Iterable[SignatureField], values: Mapping[str, Any]) -> None:
    """Check that there are not too many images, audio and files.

    Raises:
        InvalidInput: there are. It names the first that is too many.
    """
    count = 0

    def counted(path: str, _kind: Kind, value: str) -> str:
        nonlocal count
        count += 1
        if count > MAX_ITEMS:
            raise InvalidInput(
                [Problem(path, f"is one too many: at most {MAX_ITEMS} images, audio and files are taken")]
            )
        return value

    mapped(fields, turns, values, counted)


def _changed(value: Any, kind: Kind, path: str, change: Change) -> Any:
    match value:
        case str():
            return change(path, kind, value)
        case list():
            return [_changed(item, kind, f"{path}.{number}", change) for number, item in enumerate(value)]
        case _:
            return value


def _is_flat(field_type: FieldType) -> bool:
    """Whether it is at most one list, and no set."""
    lists = 0
    while isinstance(field_type, OptionalType | ArrayType):
        if isinstance(field_type, ArrayType):
            lists += 2 if field_type.uniqueItems else 1
        field_type = field_type.items if isinstance(field_type, ArrayType) else field_type.anyOf[0]
    return lists <= 1


def _any_of(field: SignatureField) -> str | None:
    """What of these a field contains."""
    return next((found for one in (field.type, *(field.defs or {}).values()) if (found := _any(one))), None)


def _any(field_type: Type) -> str | None:
    """What of these a type contains."""
    if isinstance(field_type, HistoryType):
        return "a history"
    if isinstance(field_type, StringType) and field_type.format in KINDS:
        return {"image": "an image", "audio": "audio", "file": "a file"}[str(field_type.format)]
    inner = (one for one in members_of(vars(field_type)) if isinstance(one, Type))
    return next((found for one in inner if (found := _any(one))), None)

"""Texts of a certain form: the formats of JSON Schema (dates, UUIDs, ...), and patterns.

| format    | a text such as        | by RFC 3339 and others, except that                       | object    |
|-----------|-----------------------|-----------------------------------------------------------|-----------|
| date      | 2026-11-30            |                                                           | date      |
| date-time | 2026-11-30T09:00:00Z  | the offset may be missing, as it is in Python             | datetime  |
| time      | 09:00:00              | the offset may be missing                                 | time      |
| duration  | P1DT2H                | it may have a sign; a year is 365 days, a month is 30     | timedelta |
| uuid      | 8-4-4-4-12 hex digits |                                                           | UUID      |
| uri       | https://example.org/a | it is what the URL standard of the WHATWG reads           | text      |
| email     | someone@example.org   | it may be of any script, without quotes                   | text      |
| decimal   | 12.50                 | JSON Schema does not have it: at most 100 characters      | Decimal   |

In messages and rows, all of them are text, as given. The last column is what `Signature.output_model` makes of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import (
    AfterValidator,
    AnyHttpUrl,
    AnyUrl,
    BeforeValidator,
    ConfigDict,
    GetCoreSchemaHandler,
    HttpUrl,
    StrictStr,
    TypeAdapter,
)
from pydantic_core import CoreSchema, PydanticCustomError, SchemaError, SchemaValidator, ValidationError, core_schema

Format = Literal["date", "date-time", "time", "duration", "uuid", "uri", "email", "decimal"]

MAX_PATTERN = 200
"""The longest pattern, in characters."""

ATOM_TYPES = 3
"""How many types one character of a pattern counts as: `\\w`, compiled, takes 20 kB."""


class EmailStr(str):
    """Text that pydantic's `EmailStr` stands for in a class. That one needs the package email-validator."""

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: Any, _handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(_email, core_schema.str_schema())

    @classmethod
    def __get_pydantic_json_schema__(cls, _schema: CoreSchema, _handler: Any) -> dict[str, Any]:
        return {"type": "string", "format": "email"}


def _email(text: str) -> str:
    if not _FORMS["email"].fullmatch(text):
        raise ValueError("is not an address such as someone@example.org")
    return text


OBJECTS: dict[Format, Any] = {
    "date": date,
    "date-time": datetime,
    "time": time,
    "duration": timedelta,
    "uuid": UUID,
    "uri": AnyUrl,
    "email": EmailStr,
    "decimal": Decimal,
}
"""The Python type that a class has for a format, and that DSPy is shown."""

TITLED: dict[str, Any] = {"HttpUrl": HttpUrl, "AnyHttpUrl": AnyHttpUrl}
"""The same for a `uri` with one of these titles."""

_CLOCK = r"(?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d(?:\.\d{1,9})?(?:[Zz]|[+-](?:[01]\d|2[0-3]):[0-5]\d)?"
_TEXTS: dict[Format, str] = {
    "date": r"\d{4}-\d{2}-\d{2}",
    "date-time": rf"\d{{4}}-\d{{2}}-\d{{2}}[Tt ]{_CLOCK}",
    "time": _CLOCK,
    "duration": r"[+-]?P(?=[\dT])(?:\d{1,9}W|(?:\d{1,9}Y)?(?:\d{1,9}M)?(?:\d{1,9}D)?"
    r"(?:T(?=\d)(?:\d{1,9}H)?(?:\d{1,9}M)?(?:\d{1,9}(?:\.\d{1,9})?S)?)?)",
    "uuid": r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}",
    "uri": r"[A-Za-z][A-Za-z0-9+.-]{0,30}:[^\s]+",
    "email": r"[^\s@]{1,64}@(?=[^\s@]{1,255}$)[^\s@.]+(?:\.[^\s@.]+)*",
    "decimal": r"(?=.{1,100}$)[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d{1,3})?",
}
_FORMS = {name: re.compile(form, re.ASCII) for name, form in _TEXTS.items()}
_EXAMPLES: dict[Format, str] = {
    "date": "2026-11-30",
    "date-time": "2026-11-30T09:00:00Z",
    "time": "09:00:00",
    "duration": "P1DT2H",
    "uuid": "01234567-89ab-4def-8123-456789abcdef",
    "uri": "https://example.org/a",
    "email": "someone@example.org",
    "decimal": "12.50",
}
_READ: tuple[Format, ...] = ("date", "date-time", "time", "duration", "uri")
_PARSED = {name: TypeAdapter(OBJECTS[name], config=ConfigDict(defer_build=True)) for name in _READ}


def fits(name: Format, text: str) -> bool:
    """Whether a text has this format."""
    if not _FORMS[name].fullmatch(text):
        return False
    parser = _PARSED.get(name)
    try:
        return parser is None or parser.validate_python(text) is not None
    except (ValidationError, OverflowError):
        return False


def checked(name: Format, text: Any = StrictStr) -> Any:
    """The annotation of a text that must have this format, and stays text.

    Args:
        text: the annotation of any text, perhaps with limits.
    """
    return Annotated[text, AfterValidator(_check(name))]


def read(name: Format) -> Any:
    """The annotation of the object that a text of this format stands for; only a text or the object is taken."""
    if name in ("uri", "email"):
        return checked(name)
    kind, check = OBJECTS[name], _check(name)

    def text(value: object) -> object:
        return value if isinstance(value, kind) else check(value)

    return Annotated[kind, BeforeValidator(text)]


def _check(name: Format) -> Callable[[object], str]:
    text = {"text": f"input should be text of the format {name}, such as {_EXAMPLES[name]}"}

    def check(value: object) -> str:
        if isinstance(value, str) and fits(name, value):
            return value
        raise PydanticCustomError("format", "{text}", text)

    return check


def check_pattern(pattern: str) -> str:
    """Check that validation takes this pattern.

    pydantic's regular expressions are those of Rust (https://docs.rs/regex), which take time in proportion to the text:
    they have no look-around and no back references.

    Raises:
        ValueError: why it does not.
    """
    if len(pattern) > MAX_PATTERN:
        raise ValueError(f"a pattern has at most {MAX_PATTERN} characters, this one has {len(pattern)}")
    try:
        SchemaValidator(core_schema.str_schema(pattern=pattern))
    except SchemaError as error:
        reason = str(error).strip().splitlines()[-1].strip().removeprefix("error: ").removeprefix("SchemaError: ")
        raise ValueError(f"is not a pattern that can be checked: {reason}") from None
    return pattern


_ATOM = re.compile(
    r"\\[pPx]\{[^}]*\}|\\.|\[\^?\]?(?:\\.|\[:\^?\w+:\]|[^\]\\])*\]|\{(?P<low>\d+)(?P<comma>,?)(?P<high>\d*)\}|[()|*+?]|.",
    re.DOTALL,
)


def atoms(pattern: str) -> int:
    """How many characters a pattern has when its repetitions are written out: `(ab{3}){2}` has 8."""
    if len(pattern) > MAX_PATTERN:
        return len(pattern)
    sums, last = [0], 0
    for match in _ATOM.finditer(pattern):
        part = match[0]
        if part == "(":
            sums.append(0)
            last = 0
        elif part == ")":
            last = sums.pop() if len(sums) > 1 else 1
            sums[-1] += last
        elif match["low"] is not None:
            times = int((match["high"] or match["low"])[:7])
            sums[-1] += last * (max(times, 1) - 1)
            last *= max(times, 1)
        elif part not in ("|", "*", "+", "?"):
            last = 1
            sums[-1] += 1
    return sum(sums)

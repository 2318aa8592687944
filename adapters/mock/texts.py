"""Makes texts with a format or a pattern."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID

from pydantic import TypeAdapter, ValidationError

from adapters.mock.draws import Draws
from adapters.port import AdapterError
from dspex import ErrorCode
from dspex.signatures.annotations import annotation
from dspex.signatures.formats import Format
from dspex.signatures.scalar_types import StringType

SPREADS = (3, 3, 10, 30, 100, 300)
"""How much longer than it must be a repetition becomes, in one try after the other."""

MAX_STEPS = 2_000
"""After so many steps, repetitions are as short as they may be, as those in repetitions multiply."""

_FIRST_DAY = datetime(2026, 1, 1, tzinfo=UTC)


def formed(field_type: StringType, name: str) -> Callable[[Draws], str]:
    """Compile a text type with a format or a pattern to a function that makes such texts.

    Raises:
        AdapterError: `permanent`: no such text was found.
    """
    fits = TypeAdapter(annotation(field_type))
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "text"

    def tries(draws: Draws) -> Iterable[str]:
        match field_type.format:
            case None | "image" | "audio" | "file":  # these are of inputs alone
                pass
            case form:
                yield _of_format(form, slug, draws)
        if field_type.pattern is not None:
            parsed = _parsed(field_type.pattern, name)
            lengths = [length for length in (field_type.minLength, field_type.maxLength) if length]
            for spread in [*SPREADS, *lengths * 30]:
                yield _Writer(draws, spread).written(parsed)

    def found(draws: Draws) -> str | None:
        return next((text for text in tries(draws) if _accepted(fits, text)), None)

    sure = found(Draws("sure", name))
    if sure is None:
        raise _refusal(name, "no text was found that fits its pattern, format and lengths")
    known = sure
    return lambda draws: found(draws) or known


def _accepted(fits: TypeAdapter[Any], text: str) -> bool:
    try:
        fits.validate_python(text)
    except ValidationError:
        return False
    return True


def _refusal(name: str, reason: str) -> AdapterError:
    return AdapterError(ErrorCode.PERMANENT, f"outputs.{name}: the mock cannot make a value: {reason}")


def _of_format(form: Format, slug: str, draws: Draws) -> str:
    match form:
        case "date":
            return str(date(2026, 1, 1) + timedelta(days=draws.below(365)))
        case "date-time":
            return f"{(_FIRST_DAY + timedelta(seconds=draws.below(31_536_000))):%Y-%m-%dT%H:%M:%SZ}"
        case "time":
            return str((_FIRST_DAY + timedelta(seconds=draws.below(86_400))).time())
        case "duration":
            return f"PT{1 + draws.below(59)}M"
        case "uuid":
            return str(UUID(int=draws.bits() << 64 | draws.bits(), version=4))
        case "uri":
            return f"https://example.org/{slug}/{draws.below(1 << 16):04x}"
        case "email":
            return f"{slug[:40]}.{draws.below(1 << 16):04x}@example.org"
        case "decimal":
            return f"{draws.below(1_000)}.{draws.below(100):02}"


# Patterns

_PRINTED = [chr(code) for code in range(32, 127)]
_CATEGORIES = {
    "CATEGORY_DIGIT": "0123456789",
    "CATEGORY_SPACE": " ",
    "CATEGORY_WORD": "abcdefghijklmnopqrstuvwxyz0123456789_",
}


def _parsed(pattern: str, name: str) -> Any:
    """The pattern as a tree. Python's reader of patterns is not documented, but has no alternative that is kept.

    It does not read all that validation takes (`dspex.signatures.formats`): not `\\p{L}`, for instance.
    """
    try:
        return re._parser.parse(pattern)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]  # noqa: SLF001
    except (re.error, RecursionError, OverflowError) as error:
        raise _refusal(name, f"its pattern is not one that Python reads: {error}") from None


class _Writer:
    """Writes one text that a pattern matches."""

    def __init__(self, draws: Draws, spread: int) -> None:
        self._draws, self._spread, self._steps = draws, spread, 0

    def written(self, tree: Any) -> str:
        return "".join(self._part(str(kind), value) for kind, value in tree)

    def _part(self, kind: str, value: Any) -> str:
        self._steps += 1
        match kind:
            case "LITERAL":
                return chr(value)
            case "NOT_LITERAL":
                return self._draws.choice([char for char in _PRINTED if char != chr(value)])
            case "ANY":
                return self._draws.choice(_CATEGORIES["CATEGORY_WORD"])
            case "IN":
                return self._draws.choice(_members(value) or ["?"])
            case "BRANCH":
                return self.written(self._draws.choice(value[1]))
            case "SUBPATTERN":
                return self.written(value[3])
            case "MAX_REPEAT" | "MIN_REPEAT":
                low, high, inner = value
                more = 0 if self._steps > MAX_STEPS else self._draws.below(min(int(high) - low, self._spread) + 1)
                return "".join(self.written(inner) for _ in range(low + more))
            case _:  # a place, such as the beginning or the end
                return ""


def _members(parts: Iterable[Any]) -> list[str]:
    """The printed characters of a class such as `[a-z]`; if it has none, the first few of its ranges."""
    listed = [(str(kind), value) for kind, value in parts]
    negated = any(kind == "NEGATE" for kind, _ in listed)
    chars = [char for char in _PRINTED if negated != any(_is_in(char, kind, value) for kind, value in listed)]
    ranges = [range(value[0], value[1] + 1) for kind, value in listed if kind == "RANGE"]
    ranges += [range(value, value + 1) for kind, value in listed if kind == "LITERAL"]
    return chars or [chr(code) for codes in ranges for code in codes[:8]]


def _is_in(char: str, kind: str, value: Any) -> bool:
    match kind:
        case "LITERAL":
            return bool(ord(char) == value)
        case "RANGE":
            return bool(value[0] <= ord(char) <= value[1])
        case "CATEGORY":
            name = str(value)
            return (char in _CATEGORIES.get(name.replace("NOT_", ""), "")) != ("NOT_" in name)
        case _:
            return False

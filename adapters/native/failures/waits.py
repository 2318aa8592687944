"""Reads how long a provider asks to wait: from headers, from the body, and from texts."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final

LONGEST: Final = 30 * 24 * 3600.0
"""Seconds; a longer wait is ignored. Whether a wait is too long is decided by the retry policy's `max_wait`."""

LONGEST_RESET: Final = 60.0
"""Seconds; what a successful answer says of its limits holds for so long at most, as they are those of a minute."""

_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_UNIT = r"(ms|milliseconds?|s|secs?|seconds?|m|mins?|minutes?|h|hours?|d|days?)"
_PART = re.compile(rf"(\d+(?:\.\d+)?)\s*{_UNIT}(?![a-z])", re.IGNORECASE)
_DURATION = re.compile(rf"(?:\d+(?:\.\d+)?\s*{_UNIT}\s*)+", re.IGNORECASE)
_IN_TEXT = re.compile(
    r"(?:(?:re)?try(?: your request)?(?: again)?|wait|resets?|available)(?: again)?(?: in| after| for)\s+(?:about )?"
    rf"((?:\d+(?:\.\d+)?\s*{_UNIT}(?![a-z])\s*)+)",
    re.IGNORECASE,
)
_RESETS: Final = re.compile(r"(?:x-)?ratelimit-reset(?:-.+)?|anthropic-ratelimit-.+-reset")


def asked_in_headers(headers: Sequence[tuple[str, str]], status: int | None) -> float | None:
    """Seconds to wait by a response's headers: `Retry-After` and similar, else the reset of an exhausted limit.

    https://www.rfc-editor.org/rfc/rfc9110#field.retry-after, https://platform.openai.com/docs/guides/rate-limits,
    https://docs.anthropic.com/en/api/rate-limits, https://openrouter.ai/docs/api/reference/limits
    """
    given = {name.lower(): value for name, value in headers}
    asked = [seconds(given[name], 0.001) for name in ("retry-after-ms", "x-ms-retry-after-ms") if name in given]
    asked += [seconds(given[name]) for name in ("retry-after", "x-retry-after") if name in given]
    known = [wait for wait in asked if wait is not None]
    if known:
        return max(known)
    resets = []
    for name, value in given.items():
        if _RESETS.fullmatch(name):
            left = given.get(name.replace("reset", "remaining"))
            # Every response has these headers. They count only if nothing is left, or if a 429 gives no other reason.
            if (left is not None and left.strip() == "0") or (left is None and status == 429):
                resets.append(seconds(value))
    return max((wait for wait in resets if wait is not None), default=None)


def reset_in_answer(headers: Sequence[tuple[str, str]]) -> float | None:
    """Seconds until a limit resets of which a successful response says that nothing is left, at most `LONGEST_RESET`.

    Only of one that lets more than one call or token through: else each response would say so, or a header is wrong.
    """
    given = {name.lower(): value.strip() for name, value in headers if "ratelimit" in name.lower()}
    waits = [
        seconds(value)
        for name, value in given.items()
        if _RESETS.fullmatch(name)
        and given.get(name.replace("reset", "remaining")) == "0"
        and given.get(name.replace("reset", "limit"), "").isdecimal()
        and given[name.replace("reset", "limit")].lstrip("0") not in ("", "1")
    ]
    return max((min(wait, LONGEST_RESET) for wait in waits if wait), default=None)


def asked_in_body(value: Any) -> float | None:
    """Seconds to wait by a member of the body: `"37s"`, 37, `{"seconds": 37, "nanos": 0}` (google.rpc.RetryInfo)."""
    if isinstance(value, dict):
        whole, nanos = value.get("seconds", 0), value.get("nanos", 0)
        return seconds(str(whole)) if not nanos else _checked(float(whole) + float(nanos) / 1e9)
    return seconds(str(value))


def asked_in_text(text: str) -> float | None:
    """Seconds to wait by a text, such as "Please try again in 1m2.5s."."""
    found = [_duration(match[1]) for match in _IN_TEXT.finditer(text)]
    return max((wait for wait in found if wait is not None), default=None)


def seconds(value: str, unit: float = 1.0) -> float | None:
    """A time as seconds from now: a number, a duration (`6m0s`), a time since 1970, a date of HTTP or ISO 8601.

    Args:
        unit: the unit of a plain number, in seconds. A large number is a time since 1970, in seconds or milliseconds.
    """
    text = value.strip()[:100]
    try:
        number = float(text)
    except ValueError:
        return _duration(text) if _DURATION.fullmatch(text) else _until(text)
    if not math.isfinite(number) or number < 0:
        return None
    if number > 1e9 and unit == 1.0:
        return _checked(max(0.0, (number / 1000 if number > 1e11 else number) - time.time()))
    return _checked(number * unit)


def _duration(text: str) -> float | None:
    parts = [(float(number), unit.lower()) for number, unit in _PART.findall(text)]
    total = sum(number * _UNITS["ms" if unit.startswith(("ms", "milli")) else unit[0]] for number, unit in parts)
    return _checked(total) if parts else None


def _until(text: str) -> float | None:
    for read in (parsedate_to_datetime, datetime.fromisoformat):
        try:
            when = read(text)
        except (TypeError, ValueError, OverflowError):
            continue
        when = when if when.tzinfo else when.replace(tzinfo=UTC)
        return _checked(max(0.0, when.timestamp() - time.time()))
    return None


def _checked(wait: float) -> float | None:
    return wait if math.isfinite(wait) and wait <= LONGEST else None

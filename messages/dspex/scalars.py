"""Numbers and times of the contract, taken as JSON Schema takes them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, ValidationInfo
from pydantic_core import PydanticCustomError


def whole(value: object) -> object:
    """JSON has one kind of number: `2.0` is an integer, too."""
    return int(value) if type(value) is float and value.is_integer() else value


WHOLE = BeforeValidator(whole)
"""Beside `StrictInt`, after its constraints."""


def _no_naive_object(value: object) -> object:
    if isinstance(value, datetime) and value.tzinfo is None:
        raise PydanticCustomError("timezone_aware", "input should have timezone info")
    return value


def _in_utc(moment: datetime) -> datetime:
    try:
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("must be within the years 1 to 9999 in UTC") from None


Moment = Annotated[datetime, BeforeValidator(_no_naive_object), AfterValidator(_in_utc)]
"""In UTC, and so is text that names no zone. An object of Python's without one would be of this machine's: refused."""


def _no_earlier(until: datetime, info: ValidationInfo) -> datetime:
    since = info.data.get("since")
    if since is not None and until < since:
        raise ValueError("must not be before 'since': such a window holds nothing")
    return until


Until = Annotated[Moment, AfterValidator(_no_earlier)]
"""Where a window ends that begins at the model's `since`, which comes before it."""

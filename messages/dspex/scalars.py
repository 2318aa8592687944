"""Numbers and times of the contract, read by the rules of JSON Schema."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, ValidationInfo
from pydantic_core import PydanticCustomError


def whole(value: object) -> object:
    """Convert `2.0` to the integer 2, as JSON Schema counts it as an integer."""
    return int(value) if type(value) is float and value.is_integer() else value


WHOLE = BeforeValidator(whole)
"""For annotations with `StrictInt`: to be put after its constraints."""


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
"""A time in UTC. Text without a zone is read as UTC. A naive `datetime` is refused, as it would mean local time."""


def _no_earlier(until: datetime, info: ValidationInfo) -> datetime:
    since = info.data.get("since")
    if since is not None and until < since:
        raise ValueError("must not be before 'since': such a window holds nothing")
    return until


Until = Annotated[Moment, AfterValidator(_no_earlier)]
"""The end of a window of time. The model's `since` is its start, and must be the earlier field."""

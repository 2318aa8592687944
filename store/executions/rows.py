"""Conversions to and from an execution's row."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime
from decimal import Decimal
from operator import attrgetter
from typing import Any
from uuid import UUID

from dspex import ErrorDetail, ExecutionOptions, ExecutionStatus, Usage
from dspex.contract.callback import Callback
from dspex.contract.options import Lane
from dspex.ids import DEFAULT_TENANT, digest
from dspex.text import storable
from store import statuses
from store.column_types import UtcDateTime
from store.database.batch import moment
from store.database.identity import Identified, Identity
from store.executions import timeline
from store.executions.timeline import TimelineEntry
from store.tables import executions


@dataclass(frozen=True)
class Request(Identified):
    """A request to execute: the data of the command, and where it came from."""

    id: UUID
    program_id: UUID
    inputs: Mapping[str, Any]
    options: ExecutionOptions
    source: str
    traceparent: str | None = None
    tenant: str = DEFAULT_TENANT
    idempotency_key: str | None = None
    reply_to: str | None = None
    correlation_id: str | None = None
    callback: Callback | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    extensions: Mapping[str, Any] = field(default_factory=dict)
    requested_at: datetime | None = None

    @property
    def digest(self) -> str:
        """The same for equal requests, also when read from the database. With another digest, the same id is a
        conflict.

        Members that are not set do not affect it, so that later versions can add members. Metadata, extension
        attributes, the lane and whether there is a trace are not part of it; those of the first request are kept.
        """
        asked = {
            "program": self.program_id.hex,
            "inputs": _exact(self.inputs),
            "options": self.options.model_dump(mode="json", exclude={"trace", "lane"}),
        }
        return digest(asked if self.callback is None else asked | {"callback": kept_callback(self.callback)})


EXTERNAL = statuses.EXTERNAL


def external_digest(request: Request) -> str:
    """The digest of a request to create an external execution: never that of a request to execute."""
    return (EXTERNAL + request.digest)[:64]


def kept_callback(callback: Callback | None) -> dict[str, Any] | None:
    """The stored form of a callback: the members that differ from the defaults."""
    return None if callback is None else callback.model_dump(mode="json", exclude_defaults=True)


def callback_of(value: dict[str, Any] | None) -> Callback | None:
    """Read a stored callback."""
    return None if value is None else Callback(**value)


def _exact(value: Any) -> Any:
    """Convert whole floats in JSON values to integers: PostgreSQL stores 1e16 as 10000000000000000, and -0.0 as 0.0."""
    kind = type(value)
    if kind is str or kind is int:  # most values are, and the other checks cost more
        return value
    if kind is list or kind is tuple:
        return [_exact(item) for item in value]
    if kind is float:
        return int(Decimal(repr(value))) if value.is_integer() else value
    if kind is dict or isinstance(value, Mapping):
        return {key: _exact(item) for key, item in value.items()}
    return value


@dataclass(frozen=True)
class Carried:
    """State that the attempts of an execution pass on to the next one.

    Attributes:
        waits, waited: how often, and for how many seconds in all, it waited for a rate limit: when written, the
            requested time; when claimed, the elapsed time by the database's clock.
        repaired: whether it was already run again after an unusable answer.
    """

    waits: int = 0
    waited: float = 0.0
    repaired: bool = False


EndKey = tuple[Identity, int, str]


@dataclass(frozen=True)
class Execution(Identified):
    """An execution as read from its row."""

    id: UUID
    program_id: UUID
    status: ExecutionStatus
    inputs: dict[str, Any]
    options: ExecutionOptions
    outputs: dict[str, Any] | None
    error: ErrorDetail | None
    usage: Usage
    duration_ms: float | None
    attempt: int
    backend_id: str | None
    worker: str | None
    source: str
    traceparent: str | None
    inserted_at: datetime
    updated_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    lock_version: int
    tenant: str
    cancel_requested: bool
    timeline: tuple[TimelineEntry, ...]
    not_before: datetime | None = None
    reply_to: str | None = None
    correlation_id: str | None = None
    discarded: bool = False
    callback: Callback | None = None
    program_callback: Callback | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    extensions: Mapping[str, Any] = field(default_factory=dict)
    requested_at: datetime | None = None
    request_digest: str = ""
    extra_outputs: Mapping[str, Any] = field(default_factory=dict)

    @property
    def external(self) -> bool:
        """Whether a service runs it itself, see `store.executions.external`."""
        return self.request_digest.startswith(EXTERNAL)


@dataclass(frozen=True)
class Trace:
    """The steps of an attempt in their JSON form, and whether they were cut to fit."""

    attempt: int
    steps: Sequence[Mapping[str, Any]]
    shortened: bool = False


@dataclass(frozen=True)
class Finish(Identified):
    """The end of a claimed execution: outputs, or an error, or cancelled (an error may then say why).

    Attributes:
        duration_ms: of the last attempt; None if that never ran, so that no statistics include it.
        answered: whether a sender waits for an answer.
        attempt: how many attempts were started; None: as in the row, including this claim.
        trace: kept in its own table; see `store.executions.traces`.
        spent: what this attempt used alone, for the limits of gates; None: it did not run.
        limited: the LMs whose provider told it to call less, by their names in the program: for how many seconds; None:
            it did not say.
    """

    id: UUID
    program_id: UUID
    lock_version: int
    duration_ms: float | None
    usage: Usage
    outputs: Mapping[str, Any] | None = None
    error: ErrorDetail | None = None
    cancelled: bool = False
    tenant: str = DEFAULT_TENANT
    answered: bool = False
    attempt: int | None = None
    trace: Trace | None = None
    extra_outputs: Mapping[str, Any] = field(default_factory=dict)
    spent: Usage | None = None
    limited: Mapping[str, float | None] = field(default_factory=dict)

    @property
    def status(self) -> ExecutionStatus:
        if self.cancelled:
            return ExecutionStatus.CANCELLED
        return ExecutionStatus.COMPLETED if self.error is None else ExecutionStatus.FAILED

    @property
    def key(self) -> EndKey:
        """The identity of this write: a claim ends exactly once."""
        return self.identity, self.lock_version, self.status


@dataclass(frozen=True)
class Retry(Identified):
    """The end of an attempt that another follows: the execution becomes pending, and is due in `delay` seconds.

    Attributes:
        attempt: how many attempts are spent.
        usage: the usage of all attempts so far.
        trace, spent, limited: see `Finish`.
    """

    id: UUID
    lock_version: int
    delay: float
    attempt: int
    error: ErrorDetail
    usage: Usage
    carried: Carried
    tenant: str = DEFAULT_TENANT
    trace: Trace | None = None
    spent: Usage | None = None
    limited: Mapping[str, float | None] = field(default_factory=dict)

    @property
    def key(self) -> EndKey:
        """The identity of this write; see `Finish.key`."""
        return self.identity, self.lock_version, ExecutionStatus.PENDING


EXTRAS = "$extra"
"""The member of the column `outputs` that has the outputs beside the signature. No field has such a name."""


def with_extras(outputs: Mapping[str, Any] | None, extras: Mapping[str, Any]) -> dict[str, Any] | None:
    """The value of the column `outputs`."""
    if outputs is None:
        return None
    return {**outputs, EXTRAS: dict(extras)} if extras else dict(outputs)


def without_extras(kept: dict[str, Any] | None) -> tuple[dict[str, Any] | None, Mapping[str, Any]]:
    """The outputs of the signature, and those beside it, in a value of the column `outputs`."""
    if kept is None or EXTRAS not in kept:
        return kept, {}
    return {name: value for name, value in kept.items() if name != EXTRAS}, kept[EXTRAS]


KEPT = tuple(field.name for field in fields(Request) if field.name != "idempotency_key")
"""The columns for the fields of a request. Its idempotency key is stored in another table."""

REQUEST_COLUMNS = (*KEPT, "request_digest", "not_before", "deadline", "lane")
"""The columns of `request_row`."""


def lane_of(options: ExecutionOptions) -> Lane:
    """The lane in which an execution with these options waits."""
    return options.lane or Lane.DEFAULT


def request_row(request: Request) -> dict[str, Any]:
    """A request as a record for the statements. Rare members are left out if empty, which reads as NULL."""
    options = request.options
    row = vars(request) | {
        "inputs": dict(request.inputs),
        "options": options.model_dump(mode="json"),
        "callback": kept_callback(request.callback),
        "request_digest": request.digest,
        "not_before": moment(options.not_before),
        "deadline": moment(options.deadline),
        "lane": lane_of(options).number,
        "requested_at": moment(request.requested_at),
    }
    for name in ("metadata", "extensions"):
        if row[name]:
            row[name] = dict(row[name])
        else:
            del row[name]
    del row["idempotency_key"]
    return row


def finish_row(item: Finish) -> dict[str, Any]:
    """An end as a record for the statement. Members outside of its key are written to the columns of their names."""
    return {
        "id": item.id,
        "tenant": item.tenant,
        "lock_version": item.lock_version,
        "status": item.status,
        "attempt": item.attempt,
        "outputs": with_extras(item.outputs, item.extra_outputs),
        "duration_ms": item.duration_ms,
        **_error(item.error),
        **_used(item.usage),
    }


def retry_row(item: Retry) -> dict[str, Any]:
    """A `Retry` as a record for the statement; see `finish_row`."""
    return {
        "id": item.id,
        "tenant": item.tenant,
        "lock_version": item.lock_version,
        "attempt": item.attempt,
        "delay": item.delay,
        "carried": vars(item.carried),
        **_error(item.error),
        **_used(item.usage),
    }


def _used(usage: Usage) -> dict[str, Any]:
    """The usage, and the columns that are copied from it."""
    return {
        "usage": usage.model_dump(mode="json"),
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "cost": cost_of(usage),
    }


def cost_of(usage: Usage) -> float | None:
    """The cost for the column; None if not known, 0 if there were no calls."""
    unknown = usage.calls or usage.cost is not None or usage.input_tokens is None
    return usage.cost if unknown else 0.0


def _error(error: ErrorDetail | None) -> dict[str, Any]:
    """The error, and the column that is copied from it."""
    if error is None:
        return {"error": None, "error_code": None}
    problems = [{"field": storable(p.field), "message": storable(p.message)} for p in error.problems]
    kept = {"code": error.code, "message": storable(error.message), "problems": problems}
    return {"error": kept, "error_code": storable(error.code)[:64]}


def usage_of(value: Mapping[str, Any] | None) -> Usage:
    """A usage as it was stored, also by a later version, whose further members are left out."""
    return Usage.model_validate(value or {}, extra="ignore")


def _in_utc(value: datetime | None) -> datetime | None:
    """A time as the driver read it: a session whose URL says so has another time zone."""
    return None if value is None else value.astimezone(UTC)


_READ: dict[str, Callable[[Any], Any]] = {
    **{column.name: _in_utc for column in executions.c if isinstance(column.type, UtcDateTime)},
    "status": ExecutionStatus,
    "options": lambda value: ExecutionOptions(**value),
    "error": lambda value: ErrorDetail(**value) if value else None,
    "usage": usage_of,
    "timeline": timeline.read,
    "callback": callback_of,
    "program_callback": callback_of,
    "metadata": lambda value: value or {},
    "extensions": lambda value: value or {},
}
"""Converters for columns whose value needs one."""


def _reader(names: Sequence[str]) -> Callable[[Any], list[Any]]:
    """Make a function that reads these columns of a row, in their order."""
    columns, converted = attrgetter(*names), [(names.index(name), _READ[name]) for name in names if name in _READ]

    def read(row: Any) -> list[Any]:
        values = list(columns(row))
        for index, convert in converted:
            values[index] = convert(values[index])
        return values

    return read


EXECUTION_COLUMNS = tuple(field.name for field in fields(Execution) if field.name != "extra_outputs")
"""The columns for `execution_of`."""
_read_execution = _reader(EXECUTION_COLUMNS)
_read_request = _reader(KEPT)


def execution_of(row: Any) -> Execution:
    """Read an execution from a row with the columns `EXECUTION_COLUMNS`."""
    read = Execution(*_read_execution(row))
    outputs, extras = without_extras(read.outputs)
    return replace(read, outputs=outputs, extra_outputs=extras) if extras else read


def request_of(row: Any) -> Request:
    """Read the request of an execution from a row with the columns `KEPT`."""
    return Request(**dict(zip(KEPT, _read_request(row), strict=True)))

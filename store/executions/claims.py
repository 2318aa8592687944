"""The possible results of a claim, and how they are read from its row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from types import MappingProxyType
from typing import Any
from uuid import UUID

from dspex import ExecutionStatus, Usage
from dspex.contract.retry_policy import ExecutionPolicy
from store.executions.rows import Carried, Execution, usage_of
from store.tables import executions


@dataclass(frozen=True)
class Lease:
    """The claiming worker, and for how many seconds a claim holds without a heartbeat."""

    worker: str
    seconds: float


@dataclass(frozen=True)
class Claimed:
    """The worker has claimed the execution and may run it.

    Attributes:
        id: the id of the request, or of the first request with its idempotency key.
        backend_id: None if the program is not ready.
        cancel_requested: a cancel was requested while an earlier worker ran it; end it as cancelled.
        policy: the retry policy of the program.
        usage: the usage of earlier attempts.
        lost: how many attempts ended with their worker.
        seconds_left: seconds until its deadline, or None. If not above zero, do not run it.
        answered: whether a sender waits for an answer.
        metadata, extensions: those of the first request with this id, from the row.
        gates_at: when the gates were changed last, as the claim's statement saw them; None: it was chosen.
    """

    id: UUID
    attempt: int
    lock_version: int
    backend_id: str | None
    cancel_requested: bool = False
    policy: ExecutionPolicy = field(default_factory=ExecutionPolicy, compare=False)
    usage: Usage = field(default_factory=Usage, compare=False)
    carried: Carried = field(default_factory=Carried, compare=False)
    lost: int = 0
    seconds_left: float | None = None
    answered: bool = False
    metadata: Mapping[str, str] = field(default_factory=dict, compare=False)
    extensions: Mapping[str, Any] = field(default_factory=dict, compare=False)
    gates_at: datetime | None = field(default=None, compare=False)


@dataclass(frozen=True)
class ToRunAlone:
    """It may be claimed, as the only one of its process: earlier attempts ended with their worker, and one is left."""

    id: UUID


@dataclass(frozen=True)
class Waiting:
    """The execution waits in its queue, or is just being taken from there.

    Attributes:
        new: this claim has written it down; else it was there.
    """

    id: UUID
    new: bool = field(default=False, compare=False)


@dataclass(frozen=True)
class Running:
    """A worker has claimed it. If its lease has run out, the relay has it wait again."""

    id: UUID


@dataclass(frozen=True)
class Ended:
    """The execution has already ended."""

    execution: Execution


@dataclass(frozen=True)
class Conflicting:
    """The id, or the idempotency key, belongs to another request."""

    id: UUID
    by_key: bool = False


@dataclass(frozen=True)
class NoProgram:
    """The program does not exist, or no longer exists."""

    id: UUID


Claim = Claimed | ToRunAlone | Waiting | Running | Ended | Conflicting | NoProgram

CLAIMED_COLUMNS = ("tenant", "status", "reply_to", *(f.name for f in fields(Claimed) if f.name in executions.c))
"""The columns for `claim_of`, which also reads `seconds_left` and `late`."""


def claim_of(row: Any) -> Claim:
    """The result of a claim that took or inserted a row."""
    if row.status == ExecutionStatus.PENDING:
        return Waiting(row.id, new=True)
    return Claimed(
        row.id,
        row.attempt,
        row.lock_version,
        row.backend_id,
        row.cancel_requested,
        ExecutionPolicy(**row.policy) if row.policy else _DEFAULTS,
        usage_of(row.usage) if row.usage else _UNUSED,
        _carried(row) if row.carried else _FIRST,
        row.lost,
        row.seconds_left,
        row.reply_to is not None,
        row.metadata or _NONE,
        row.extensions or _NONE,
        getattr(row, "gates_at", None),
    )


def _carried(row: Any) -> Carried:
    carried = Carried(**row.carried)
    return replace(carried, waited=carried.waited + max(0.0, row.late or 0.0))


_DEFAULTS, _UNUSED, _FIRST = ExecutionPolicy(), Usage(), Carried()
_NONE: Mapping[str, Any] = MappingProxyType({})

"""The lifecycles of the three entities, as closed sets with their allowed transitions."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType


class SignatureStatus(StrEnum):
    """draft → active → deprecated."""

    DRAFT = "draft"
    ACTIVE = "active"
    DEPRECATED = "deprecated"


class ProgramStatus(StrEnum):
    """draft → initializing → ready | error → archived; error may be initialized again.

    One that is archived may be restored: it is what it was before.
    """

    DRAFT = "draft"
    INITIALIZING = "initializing"
    READY = "ready"
    ERROR = "error"
    ARCHIVED = "archived"


class ExecutionStatus(StrEnum):
    """pending → running → completed | failed | cancelled. A pending execution can be cancelled, too,
    and fails if its program is archived.

    A running execution becomes pending again when its worker releases it or is lost, or when its attempt failed and
    another follows. A failed one becomes pending again only if an operator replays it.
    """

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def terminal(self) -> bool:
        """Whether the status is final."""
        return not EXECUTION_TRANSITIONS[self]


class DeadLetterStatus(StrEnum):
    """Of a rejected message: dead → replayed | discarded. A message that is rejected again is dead again."""

    DEAD = "dead"
    REPLAYED = "replayed"
    DISCARDED = "discarded"


class DeliveryStatus(StrEnum):
    """Of a webhook: pending → delivered | failed. A replay makes it pending again, under the same id."""

    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"


SIGNATURE_TRANSITIONS: Mapping[SignatureStatus, frozenset[SignatureStatus]] = MappingProxyType(
    {
        SignatureStatus.DRAFT: frozenset({SignatureStatus.ACTIVE}),
        SignatureStatus.ACTIVE: frozenset({SignatureStatus.DEPRECATED}),
        SignatureStatus.DEPRECATED: frozenset(),
    }
)

PROGRAM_TRANSITIONS: Mapping[ProgramStatus, frozenset[ProgramStatus]] = MappingProxyType(
    {
        ProgramStatus.DRAFT: frozenset({ProgramStatus.INITIALIZING, ProgramStatus.ARCHIVED}),
        ProgramStatus.INITIALIZING: frozenset({ProgramStatus.READY, ProgramStatus.ERROR}),
        ProgramStatus.READY: frozenset({ProgramStatus.ARCHIVED}),
        ProgramStatus.ERROR: frozenset({ProgramStatus.INITIALIZING, ProgramStatus.ARCHIVED}),
        ProgramStatus.ARCHIVED: frozenset({ProgramStatus.DRAFT, ProgramStatus.READY, ProgramStatus.ERROR}),
    }
)

EXECUTION_TRANSITIONS: Mapping[ExecutionStatus, frozenset[ExecutionStatus]] = MappingProxyType(
    {
        ExecutionStatus.PENDING: frozenset(
            {ExecutionStatus.RUNNING, ExecutionStatus.CANCELLED, ExecutionStatus.FAILED}
        ),
        ExecutionStatus.RUNNING: frozenset(
            {ExecutionStatus.PENDING, ExecutionStatus.COMPLETED, ExecutionStatus.FAILED, ExecutionStatus.CANCELLED}
        ),
        ExecutionStatus.COMPLETED: frozenset(),
        ExecutionStatus.FAILED: frozenset(),
        ExecutionStatus.CANCELLED: frozenset(),
    }
)


class ErrorCode(StrEnum):
    """Why an execution failed, or a program could not be built. A closed set: the code decides what happens next."""

    PROGRAM_NOT_READY = "program_not_ready"
    PROGRAM_ARCHIVED = "program_archived"
    INVALID_INPUT = "invalid_input"
    INVALID_OUTPUT = "invalid_output"
    PARSE_FAILURE = "parse_failure"
    RATE_LIMITED = "rate_limited"
    TRANSIENT = "transient"
    TIMEOUT = "timeout"
    AUTH = "auth"
    BILLING = "billing"
    CONTEXT_WINDOW = "context_window"
    REFUSED = "refused"
    TRUNCATED = "truncated"
    CRASHED = "crashed"
    CANCELLED = "cancelled"
    PERMANENT = "permanent"
    ATTEMPTS_EXHAUSTED = "attempts_exhausted"
    EXPIRED = "expired"
    LEASE_EXPIRED = "lease_expired"
    INTERNAL = "internal"

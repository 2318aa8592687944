"""The conditions that an execution has a status, written like the predicates of the partial indexes."""

from __future__ import annotations

from sqlalchemy import ColumnElement, literal_column

from dspex import ExecutionStatus
from store.tables import executions


def status_in(*statuses: ExecutionStatus) -> ColumnElement[bool]:
    """The condition that the status is one of these, written like the predicates of the partial indexes.

    The values are part of the text, because PostgreSQL cannot match parameters with a partial index. SQLite cannot
    match an IN with one member.
    """
    listed: list[ColumnElement[str]] = [literal_column(f"'{status}'") for status in statuses]
    return executions.c.status == listed[0] if len(listed) == 1 else executions.c.status.in_(listed)


PENDING = status_in(ExecutionStatus.PENDING)
RUNNING = status_in(ExecutionStatus.RUNNING)

EXTERNAL = "external:"
"""The begin of the digest of an external execution's request. No other has it, so no claim ever matches the row."""

IS_EXTERNAL = executions.c.request_digest.like(literal_column(f"'{EXTERNAL}%'"))
"""The condition that no worker runs the execution, but a service, see `store.executions.external`."""

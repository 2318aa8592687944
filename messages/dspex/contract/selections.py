"""Commands for many things at once: those with the given ids, or all that match a filter; without either, all.

Only things of the tenant are meant. `since` and `until` compare the time when they were first recorded. Repeating a
command has no further effect: it skips what is done.

A command may take long. With `limit`, it ends after so many, and the answer's `next_cursor` goes on, with the same
filter: so a sender sees how far it is, and may stop in between.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self
from uuid import UUID

from pydantic import Field, StrictBool, StrictInt, model_validator

from dspex.contract.commands import Command
from dspex.contract.options import Lane, Metadata
from dspex.contract.results import Affected
from dspex.contract.status import ExecutionStatus
from dspex.scalars import WHOLE, Moment, Until

Ids = Annotated[tuple[UUID, ...], Field(min_length=1, max_length=1000)]
ErrorCodeName = Annotated[str, Field(max_length=64)]
QueueName = Annotated[str, Field(max_length=255)]
Limit = Annotated[StrictInt, Field(ge=1, le=1000), WHOLE]
Cursor = Annotated[str, Field(max_length=500)]

_HOW = ("limit", "cursor", "dry_run")


class Selection(Command):
    """Base of the commands: ids, or a filter."""

    answer = Affected

    error_code: ErrorCodeName | None = None
    since: Moment | None = None
    until: Until | None = None
    limit: Limit | None = None
    cursor: Cursor | None = None

    @property
    def ids(self) -> tuple[UUID, ...] | None:
        """The ids, if any are given."""
        ids: tuple[UUID, ...] | None = next(
            getattr(self, name) for name in type(self).model_fields if name.endswith("_ids")
        )
        return ids

    @property
    def filters(self) -> dict[str, Any]:
        """The filters, by name."""
        names = (name for name in type(self).model_fields if name not in _HOW and not name.endswith("_ids"))
        return {name: getattr(self, name) for name in names}

    @model_validator(mode="after")
    def _ids_or_filter(self) -> Self:
        of_filter = (*self.filters.values(), *(getattr(self, name, None) for name in _HOW))
        if self.ids is not None and any(value is not None for value in of_filter):
            raise ValueError("give ids or a filter, not both")
        return self


class CancelExecutions(Selection):
    """Cancel executions that have not ended: pending ones at once, running ones as soon as their adapters can stop.

    With `metadata`, those with all these values by name; with `error_code`, those that wait for another attempt after
    it. What is submitted after the command began is left alone. With `dry_run`, nothing changes, and the answer says
    how many it would be now.
    """

    type = "dspex.execution.cancel_many.v1"

    execution_ids: Ids | None = None
    program_id: UUID | None = None
    status: Literal[ExecutionStatus.PENDING, ExecutionStatus.RUNNING] | None = None
    lane: Lane | None = None
    metadata: Metadata | None = None
    dry_run: StrictBool | None = None

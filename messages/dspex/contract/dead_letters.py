"""The commands for dead letters: failed executions and rejected messages.

Each command applies to the dead letters with the given ids, or to all that match a filter; without either, to all of
the tenant. `since` and `until` compare the time when they were first recorded. Repeating a command has no further
effect: it skips what is no longer a dead letter.
"""

from __future__ import annotations

from typing import Annotated, Any, Self
from uuid import UUID

from pydantic import Field, model_validator

from dspex.contract.commands import Command
from dspex.contract.results import Affected
from dspex.scalars import Moment, Until

Ids = Annotated[tuple[UUID, ...], Field(min_length=1, max_length=1000)]
ErrorCodeName = Annotated[str, Field(max_length=64)]
QueueName = Annotated[str, Field(max_length=255)]


class Selection(Command):
    """Base of the commands: ids, or a filter."""

    answer = Affected

    error_code: ErrorCodeName | None = None
    since: Moment | None = None
    until: Until | None = None

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
        return {name: getattr(self, name) for name in type(self).model_fields if not name.endswith("_ids")}

    @model_validator(mode="after")
    def _ids_or_filter(self) -> Self:
        if self.ids is not None and any(value is not None for value in self.filters.values()):
            raise ValueError("give ids or a filter, not both")
        return self


class ExecutionSelection(Selection):
    """Which failed executions."""

    execution_ids: Ids | None = None
    program_id: UUID | None = None


class MessageSelection(Selection):
    """Which rejected messages."""

    rejection_ids: Ids | None = None
    queue: QueueName | None = None


class ReplayExecutions(ExecutionSelection):
    """failed → pending: the executions run again under the same ids, with all attempts.

    A discarded execution is included only if its id is given.
    """

    type = "dspex.execution.replay.v1"


class DiscardExecutions(ExecutionSelection):
    """The executions stay failed, and are no longer dead letters."""

    type = "dspex.execution.discard.v1"


class ReplayMessages(MessageSelection):
    """Send rejected messages again, unchanged: they become replayed, or dead again if they are rejected again.

    A message is not sent if its body was cut, if it still is no valid command, or if the principal may not give it. If
    its id was given, that is an error; by a filter, it is skipped.
    """

    type = "dspex.message.replay.v1"


class DiscardMessages(MessageSelection):
    """The messages are kept, and are no longer dead letters."""

    type = "dspex.message.discard.v1"

"""What is done with dead letters: executions that failed, and messages that were rejected.

Each command is for those that are named by their ids, or for all that a filter finds; without either, for all of the
tenant. `since` and `until` are about when they came first. Asking again changes nothing: what is no dead letter any
more is not counted.
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
        """The ids that are named, if any are."""
        ids: tuple[UUID, ...] | None = next(
            getattr(self, name) for name in type(self).model_fields if name.endswith("_ids")
        )
        return ids

    @property
    def filters(self) -> dict[str, Any]:
        """What must hold instead, by name."""
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
    """failed → pending: they run again, with all their attempts, under the same ids.

    One that was discarded is taken where it is named by its id.
    """

    type = "dspex.execution.replay.v1"


class DiscardExecutions(ExecutionSelection):
    """They stay as they are, and are no dead letters any more."""

    type = "dspex.execution.discard.v1"


class ReplayMessages(MessageSelection):
    """Send rejected messages again, as they came: they are replayed, or dead again where they are rejected again.

    What cannot help is not sent: a body that was cut, or still is no command; or one that the principal may not give.
    It is an error where it is named by its id, and passed over by a filter.
    """

    type = "dspex.message.replay.v1"


class DiscardMessages(MessageSelection):
    """They are kept, and are no dead letters any more."""

    type = "dspex.message.discard.v1"

"""The commands for dead letters: failed executions and rejected messages; see `dspex.contract.selections`."""

from __future__ import annotations

from uuid import UUID

from dspex.contract.selections import Ids, QueueName, Selection


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

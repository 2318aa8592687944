"""What this process writes to the store, as the writer's operations: each takes a batch and answers for each item."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, TypeVar
from uuid import UUID

from sqlalchemy import Connection

from store import event_outbox, executions, programs, rejections
from store.database.failures import Cause, cause_of
from store.database.identity import Identity
from store.event_outbox import OutboxEntry
from store.executions import Claim, Due, Execution, Finish, Heartbeat, Lease, Request, Retry
from store.rejections import Rejection
from workers.persistence.group_commit import Refused

Result = TypeVar("Result")

RELAY_LIMIT = 100
"""How much of a kind the relay takes at a time."""


class Written(NamedTuple):
    """What became of the end of an attempt.

    Attributes:
        held: whether it is written: the execution was still as it was claimed.
        execution: that has ended, where somebody waits for the answer.
    """

    held: bool
    execution: Execution | None = None


@dataclass(frozen=True)
class Writes:
    """Every write of a worker process: who it is (`lease`), where it counts (`shard`), and when webhooks are due."""

    lease: Lease
    shard: int
    webhook_in: float = 0.0

    def claim(self, connection: Connection, requests: Sequence[Request]) -> list[Claim]:
        """Claim executions."""
        return executions.claim(connection, self.lease, requests)

    def finish(self, connection: Connection, finishes: Sequence[Finish]) -> list[Written]:
        """End executions, count them, and add their events to the outbox."""
        done = executions.finish_and_read(
            connection, self.shard, finishes, event_in=self.lease.seconds, webhook_in=self.webhook_in
        )
        return [Written(*one) for one in done]

    def retry(self, connection: Connection, retries: Sequence[Retry]) -> list[Written]:
        """Make executions wait for their next attempt."""
        return [Written(done) for done in executions.retry(connection, retries)]

    def event_sent(self, connection: Connection, ends: Sequence[OutboxEntry]) -> list[None]:
        """Delete the events that are confirmed."""
        event_outbox.sent(connection, ends)
        return [None] * len(ends)

    def heartbeat(self, connection: Connection, running: Sequence[Collection[Identity]]) -> list[Heartbeat]:
        """Extend the leases of what this process runs."""
        return [executions.heartbeat(connection, self.lease, which) for which in running]

    def release(self, connection: Connection, items: Sequence[None]) -> list[int]:
        """Give back all that this process runs."""
        return [executions.release(connection, self.lease)] * len(items)

    def give_back(self, connection: Connection, which: Sequence[Identity]) -> list[None]:
        """Give back some of what this process has claimed, for itself to claim again: the relay waits for a lease."""
        executions.release(connection, self.lease, which, due_in=self.lease.seconds)
        return [None] * len(which)

    def hand_over(self, connection: Connection, which: Sequence[Identity]) -> list[None]:
        """Give back some of what this process has claimed, for any worker."""
        executions.release(connection, self.lease, which)
        return [None] * len(which)

    def rescue(self, connection: Connection, items: Sequence[Sequence[Identity] | None]) -> list[list[Request]]:
        """Take what nobody has heard of for a lease, of these or of all: it is due at once."""
        return [executions.rescue(connection, 0.0, RELAY_LIMIT, only=only) for only in items]

    def due(self, connection: Connection, items: Sequence[Sequence[Identity] | None]) -> list[list[Due]]:
        """Take what waits and is due, of these or of all."""
        return [executions.due(connection, self.lease.seconds, RELAY_LIMIT, only=only) for only in items]

    def events_due(self, connection: Connection, items: Sequence[None]) -> list[list[Execution]]:
        """Take the executions whose event is due."""
        found = []
        for _ in items:
            due = event_outbox.due(connection, self.lease.seconds, RELAY_LIMIT)
            found.append(executions.of_all_tenants(connection, due))
        return found

    def reject(self, connection: Connection, rejected: Sequence[Rejection]) -> list[None]:
        """Record rejected messages."""
        for rejection in rejected:
            rejections.record(connection, rejection)
        return [None] * len(rejected)

    def program(self, connection: Connection, wanted: Sequence[tuple[UUID, str]]) -> list[Any]:
        """Read programs, by id and tenant. As a write, because that waits while the database cannot be read."""
        return [_attempt(connection, partial(programs.get, program_id=id_, tenant=tenant)) for id_, tenant in wanted]

    def each(self, connection: Connection, actions: Sequence[Callable[[Connection], Any]]) -> list[Any]:
        """What is rare needs no batch: any action, one by one. One that is refused costs the others nothing."""
        return [_attempt(connection, action) for action in actions]


def _attempt(connection: Connection, action: Callable[[Connection], Result]) -> Result | Refused:
    """What an action comes to: where it raises, nothing of it is left, and all else in the transaction is."""
    savepoint = connection.begin_nested()
    try:
        result = action(connection)
    except Exception as error:
        if cause_of(error) is Cause.AWAY:
            raise
        savepoint.rollback()
        return Refused(error)
    savepoint.commit()
    return result

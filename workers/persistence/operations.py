"""The writes of a worker process, as operations of the writer: each takes a batch and returns a result per item."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, TypeVar
from uuid import UUID

from sqlalchemy import Connection

from store import blob_owners, event_outbox, executions, programs, rejections
from store.database.failures import Cause, cause_of
from store.database.identity import Identity
from store.event_outbox import OutboxEntry
from store.executions import Claim, Due, Execution, Finish, Heartbeat, Lease, Request, Retry, external
from store.rejections import Rejection
from workers.persistence.group_commit import Refused

Result = TypeVar("Result")

RELAY_LIMIT = 100
"""How many executions or events the relay takes at a time."""


class Written(NamedTuple):
    """The result of writing the end of an attempt.

    Attributes:
        held: whether it was written. False: another worker has claimed the execution since.
        execution: the ended execution, if a sender waits for the answer.
    """

    held: bool
    execution: Execution | None = None


@dataclass(frozen=True)
class Writes:
    """All writes of a worker process, with its name (`lease`), its shard of the counters, and when webhooks are due.

    Attributes:
        max_attempts: of the executions whose program does not say.
    """

    lease: Lease
    shard: int
    webhook_in: float = 0.0
    max_attempts: int = 3

    def claim(self, connection: Connection, requests: Sequence[Request]) -> list[Claim]:
        """Claim executions that may run beside others."""
        return executions.claim(connection, self.lease, requests, alone_at=self.max_attempts)

    def claim_alone(self, connection: Connection, requests: Sequence[Request]) -> list[Claim]:
        """Claim executions while no other runs here."""
        return executions.claim(connection, self.lease, requests)

    def finish(self, connection: Connection, finishes: Sequence[Finish]) -> list[Written]:
        """End executions, count them, and add their events to the outbox."""
        done = executions.finish_and_read(
            connection, self.shard, finishes, event_in=self.lease.seconds, webhook_in=self.webhook_in
        )
        return [Written(*one) for one in done]

    def retry(self, connection: Connection, retries: Sequence[Retry]) -> list[Written]:
        """Make executions pending for their next attempt."""
        return [Written(done) for done in executions.retry(connection, retries)]

    def event_sent(self, connection: Connection, ends: Sequence[OutboxEntry]) -> list[None]:
        """Delete confirmed events."""
        event_outbox.sent(connection, ends)
        return [None] * len(ends)

    def heartbeat(self, connection: Connection, running: Sequence[Collection[Identity]]) -> list[Heartbeat]:
        """Extend the leases of this process's executions."""
        return [executions.heartbeat(connection, self.lease, which) for which in running]

    def release(self, connection: Connection, items: Sequence[None]) -> list[int]:
        """Give all claims of this process back."""
        return [executions.release(connection, self.lease)] * len(items)

    def hand_over(self, connection: Connection, which: Sequence[Identity]) -> list[None]:
        """Give some claims back, for any worker."""
        executions.release(connection, self.lease, which)
        return [None] * len(which)

    def rescue(self, connection: Connection, items: Sequence[Sequence[Identity] | None]) -> list[list[Request]]:
        """Take executions whose lease has run out, of these or of all. They are due at once."""
        return [executions.rescue(connection, 0.0, RELAY_LIMIT, only=only) for only in items]

    def due(self, connection: Connection, items: Sequence[Sequence[Identity] | None]) -> list[list[Due]]:
        """Take pending executions that are due, of these or of all."""
        return [executions.due(connection, self.lease.seconds, RELAY_LIMIT, only=only) for only in items]

    def events_due(self, connection: Connection, items: Sequence[None]) -> list[list[Execution]]:
        """Take the executions whose event is due."""
        found = []
        for _ in items:
            due = event_outbox.due(connection, self.lease.seconds, RELAY_LIMIT)
            found.append(executions.of_all_tenants(connection, due))
        return found

    def end_expired(self, connection: Connection, items: Sequence[None]) -> list[list[Execution]]:
        """End external executions whose lease has run out."""
        return [
            external.end_expired(
                connection, self.shard, RELAY_LIMIT, event_in=self.lease.seconds, webhook_in=self.webhook_in
            )
            for _ in items
        ]

    def own_blobs(self, connection: Connection, marks: Sequence[UUID]) -> list[None]:
        """Make these marks in a blob store those of this database."""
        blob_owners.add(connection, marks)
        return [None] * len(marks)

    def reject(self, connection: Connection, rejected: Sequence[Rejection]) -> list[None]:
        """Record rejected messages."""
        for rejection in rejected:
            rejections.record(connection, rejection)
        return [None] * len(rejected)

    def program(self, connection: Connection, wanted: Sequence[tuple[UUID, str]]) -> list[Any]:
        """Read programs by id and tenant, as a write operation, which waits while the database is unavailable."""
        return [_attempt(connection, partial(programs.get, program_id=id_, tenant=tenant)) for id_, tenant in wanted]

    def each(self, connection: Connection, actions: Sequence[Callable[[Connection], Any]]) -> list[Any]:
        """Run any rare actions one by one. A refused one does not affect the others."""
        return [_attempt(connection, action) for action in actions]


def _attempt(connection: Connection, action: Callable[[Connection], Result]) -> Result | Refused:
    """Run an action in a savepoint. If it raises, only its own writes are rolled back."""
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

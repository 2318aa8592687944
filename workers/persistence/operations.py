"""The writes of a worker process, as operations of the writer: each takes a batch and returns a result per item."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple, TypeVar
from uuid import UUID

from sqlalchemy import Connection

from store import blob_owners, event_outbox, executions, programs, rejections
from store.database.failures import Cause, cause_of
from store.database.identity import Identity
from store.event_outbox import OutboxEntry
from store.executions import Claim, Claimed, Execution, Finish, Heartbeat, Lease, Request, Retry, external
from store.executions.choosing import Choice, choose, wake
from store.executions.grouping import group_waiting
from store.executions.ownership import take_over
from store.gates import KnownGates, sweep
from store.queues.keys import QueueKey, Swept
from store.queues.reconciling import reconcile
from store.queues.turns import Turns
from store.rejections import Rejection
from workers.persistence.gates import claim_passing, give_way, group, may_begin, settle
from workers.persistence.group_commit import Refused

Result = TypeVar("Result")

RELAY_LIMIT = 100
"""How many executions or events the relay takes at a time."""
SWEPT = 200
"""How many queues the relay looks through at a time."""


class Written(NamedTuple):
    """The result of writing the end of an attempt.

    Attributes:
        held: whether it was written. False: another worker has claimed the execution since.
        execution: the ended execution, if a sender waits for the answer.
    """

    held: bool
    execution: Execution | None = None


class Submission(NamedTuple):
    """An execution that a message asks for; `now`: this process has a free place for it."""

    request: Request
    now: bool


class Look(NamedTuple):
    """A look at what waits, for so many free places; `wake`: some may be due by now."""

    places: int
    wake: bool = False


@dataclass(frozen=True)
class Writes:
    """All writes of a worker process, with its name (`lease`), its shard of the counters, and when webhooks are due.

    Attributes:
        max_attempts: of the executions whose program does not say.
        only_own: whether it chooses only what came to this process.
        turns: whose turn it is.
        gates: what is paused or limited, as far as this process knows.
    """

    lease: Lease
    shard: int
    webhook_in: float = 0.0
    max_attempts: int = 3
    only_own: bool = False
    turns: Turns = field(default_factory=Turns)
    gates: KnownGates = field(default_factory=KnownGates)

    def claim(self, connection: Connection, submissions: Sequence[Submission]) -> list[Claim]:
        """Accept executions: claim those that may run now, beside others; the others wait in their queues."""
        self.gates.refresh(connection)
        requests = [one.request for one in submissions]
        now = [one.now and may_begin(self.gates, one.request) for one in submissions]
        claims = executions.claim(connection, self.lease, requests, now=now)
        if any(isinstance(claim, Claimed) and not self.gates.covers(claim) for claim in claims):
            claims = give_way(connection, self.gates, self.lease, requests, claims)
        if self.gates:
            group(connection, self.gates, requests, claims)
        return claims

    def claim_alone(self, connection: Connection, requests: Sequence[Request]) -> list[Claim]:
        """Claim executions while no other runs here, as far as their gates have room."""
        self.gates.refresh(connection, anyway=True)
        return claim_passing(connection, self.gates, self.lease, requests)

    def finish(self, connection: Connection, finishes: Sequence[Finish]) -> list[Written]:
        """End executions, count them, and add their events to the outbox."""
        done = executions.finish_and_read(
            connection, self.shard, finishes, event_in=self.lease.seconds, webhook_in=self.webhook_in
        )
        settle(connection, self.gates, finishes)
        return [Written(*one) for one in done]

    def retry(self, connection: Connection, retries: Sequence[Retry]) -> list[Written]:
        """Make executions pending for their next attempt."""
        done = executions.retry(connection, retries)
        settle(connection, self.gates, retries)
        return [Written(held) for held in done]

    def event_sent(self, connection: Connection, ends: Sequence[OutboxEntry]) -> list[None]:
        """Delete confirmed events."""
        event_outbox.sent(connection, ends)
        return [None] * len(ends)

    def heartbeat(self, connection: Connection, running: Sequence[Collection[Identity]]) -> list[Heartbeat]:
        """Extend the leases of this process's executions."""
        return [executions.heartbeat(connection, self.lease, which) for which in running]

    def release(self, connection: Connection, besides: Sequence[Collection[Identity]]) -> list[int]:
        """Give all claims of this process back, besides some."""
        return [executions.release(connection, self.lease, besides=kept) for kept in besides]

    def hand_over(self, connection: Connection, which: Sequence[Identity]) -> list[None]:
        """Give some claims back, for any worker."""
        executions.release(connection, self.lease, which)
        return [None] * len(which)

    def choose(self, connection: Connection, looks: Sequence[Look]) -> list[Choice]:
        """Take executions that wait."""
        if any(look.wake for look in looks):
            wake(connection)
        self.gates.refresh(connection)
        only = self.lease.worker if self.only_own else None
        how: dict[str, Any] = {"alone_at": self.max_attempts, "only": only, "known": self.gates}
        return [choose(connection, self.lease, look.places, self.turns, **how) for look in looks]

    def take_over(self, connection: Connection, which: Sequence[Identity]) -> list[None]:
        """Make executions that wait this process's own."""
        take_over(connection, self.lease.worker, which)
        return [None] * len(which)

    def rescue(self, connection: Connection, items: Sequence[Sequence[Identity] | None]) -> list[list[Identity]]:
        """Make executions whose lease has run out, of these or of all, wait for their next attempt."""
        return [executions.rescue(connection, RELAY_LIMIT, only=only) for only in items]

    def adopt(self, connection: Connection, items: Sequence[None]) -> list[int]:
        """Take what workers from before queues have left into its queues."""
        return [executions.adopt(connection, RELAY_LIMIT) for _ in items]

    def look_after_queues(self, connection: Connection, after: Sequence[QueueKey | None]) -> list[Swept]:
        """Make queues ready in which something has become due, or that a gate holds no more; sweep through some,
        from one on.
        """
        wake(connection)
        if self.gates:
            sweep(connection)
            group_waiting(connection, self.gates)
        return [reconcile(connection, one, SWEPT) for one in after]

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

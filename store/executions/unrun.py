"""Counts ends that no worker has made by running an execution, and adds what tells them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row

from dspex import ExecutionStatus
from store import counters, event_outbox, webhooks
from store.counters import Counts
from store.database.identity import Identity
from store.event_outbox import OutboxEntry
from store.executions.waiting import wait_no_more
from store.queues.keys import key_of


def count_and_tell(
    connection: Connection, rows: Sequence[Row[Any]], *, shard: int, event_in: float, webhook_in: float
) -> None:
    """Count executions that this transaction has ended, and add their events and their deliveries.

    Args:
        rows: whole rows, cancelled or failed. They may have usage from earlier attempts.
        shard, event_in, webhook_in: see `store.executions.transitions.finish`.
    """
    if not rows:
        return
    counts: dict[Identity, Counts] = {}
    for row in rows:
        count = counts.setdefault(Identity(row.program_id, row.tenant), Counts(executed=False))
        count.cancelled += row.status == ExecutionStatus.CANCELLED
        count.failed += row.status == ExecutionStatus.FAILED
        count.use(row.input_tokens, row.output_tokens, row.cost)
        count.executed |= row.started_at is not None
    counters.increment(connection, shard, counts)
    event_outbox.add(connection, [OutboxEntry(row.id, row.lock_version, row.tenant) for row in rows], event_in)
    webhooks.fan_out(connection, [webhooks.end_of(row, registered=True) for row in rows], webhook_in)
    wait_no_more(connection, [key_of(row) for row in rows if row.run_at is not None])

"""What is to be done when executions begin to wait, or wait no more. The last statements of a transaction."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime

from sqlalchemy import Connection

from store.queues import counts
from store.queues.keys import QueueKey
from store.queues.offers import offer


def wait(connection: Connection, waiting: Sequence[tuple[QueueKey, datetime | None]]) -> None:
    """Executions wait now, each in this queue from this time on (None: now): count them, and offer the queues."""
    if waiting:
        offer(connection, waiting, counts.moves_of(Counter(counted(key) for key, _ in waiting), {}))


def wait_no_more(connection: Connection, gone: Iterable[QueueKey]) -> None:
    """Executions of these queues, one for each, wait no more: they run, or have ended."""
    counts.moved(connection, {}, Counter(counted(key) for key in gone))


def counted(key: QueueKey) -> counts.Counted:
    """What the executions of a queue are counted with."""
    return counts.Counted(key.tenant, key.program_id, key.lane)

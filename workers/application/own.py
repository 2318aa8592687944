"""What is this process's own, where it leaves others alone: executions it was asked for, and webhooks of their ends."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from sqlalchemy import Engine

from store import executions, webhooks
from store.database.identity import Identity
from store.webhooks import Mine
from workers.persistence.reading import read

MOST_COUNTED = 1000
MOST_TOLD = 10_000
"""Cancelled executions, and deliveries that are replayed, that are remembered."""
CLOCKS_DIFFER = timedelta(hours=1)
"""That of the database from ours, at most."""


class Own:
    """The executions that it was asked for, and has not ended yet. Shared by the threads of a process.

    Args:
        worker: the process's name.
    """

    def __init__(self, worker: str) -> None:
        self._worker = worker
        self._since = datetime.now(UTC) - CLOCKS_DIFFER
        self._told: deque[Identity] = deque(maxlen=MOST_TOLD)
        self._identities: set[Identity] = set()
        self._lock = threading.Lock()

    def add(self, identities: Iterable[Identity]) -> None:
        """These were asked for here."""
        with self._lock:
            self._identities.update(identities)

    def discard(self, identity: Identity) -> None:
        """This one has ended."""
        with self._lock:
            self._identities.discard(identity)

    def deliver(self, identities: Iterable[Identity]) -> None:
        """The webhooks of these executions, or these deliveries, are to be sent here, though they did not run here."""
        with self._lock:
            self._told.extend(identities)

    @property
    def webhooks(self) -> Mine:
        """The deliveries that are its own."""
        with self._lock:
            return Mine(self._worker, self._since, tuple(self._told))

    @property
    def identities(self) -> list[Identity]:
        """All of them."""
        with self._lock:
            return list(self._identities)


def left_by_others(engine: Engine, tenant: str, *, own: Iterable[Identity]) -> str | None:
    """What waits in the database and is none of this process's own, in words; None: nothing."""
    mine = set(own)
    with read(engine, tenant) as connection:
        found = [one for one in executions.left(connection, MOST_COUNTED + len(mine)) if one not in mine]
    if not found:
        return None
    number = f"{MOST_COUNTED:,} or more" if len(found) >= MOST_COUNTED else f"{len(found):,}"
    return f"{number} execution{'s' * (len(found) > 1)}"


def webhooks_that_wait(engine: Engine, tenant: str) -> str | None:
    """How many deliveries wait in the database, in words; None: none."""
    with read(engine, tenant) as connection:
        found = webhooks.waiting(connection, MOST_COUNTED, tenant=tenant)
    if not found:
        return None
    number = f"{MOST_COUNTED:,} or more" if found >= MOST_COUNTED else f"{found:,}"
    return f"{number} webhooks" if found > 1 else "1 webhook"

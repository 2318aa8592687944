"""The executions and webhooks of a process that leaves those of other processes alone."""

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
"""How many cancelled executions, and replayed deliveries, are remembered."""
CLOCKS_DIFFER = timedelta(hours=1)
"""The largest difference assumed between our clock and the database's."""


class Own:
    """The executions that were submitted to this process and have not ended. Thread-safe.

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
        """Note that these executions were submitted here."""
        with self._lock:
            self._identities.update(identities)

    def discard(self, identity: Identity) -> None:
        """Note that this execution has ended."""
        with self._lock:
            self._identities.discard(identity)

    def deliver(self, identities: Iterable[Identity]) -> None:
        """Send the webhooks of these executions, or these deliveries, from here, although they did not run here."""
        with self._lock:
            self._told.extend(identities)

    @property
    def webhooks(self) -> Mine:
        """The selection of this process's deliveries."""
        with self._lock:
            return Mine(self._worker, self._since, tuple(self._told))

    @property
    def identities(self) -> list[Identity]:
        """All executions that have not ended."""
        with self._lock:
            return list(self._identities)


def left_by_others(engine: Engine, tenant: str, *, own: Iterable[Identity]) -> str | None:
    """Describes how many executions of other processes wait in the database; None if there are none."""
    mine = set(own)
    with read(engine, tenant) as connection:
        found = [one for one in executions.left(connection, MOST_COUNTED + len(mine)) if one not in mine]
    if not found:
        return None
    number = f"{MOST_COUNTED:,} or more" if len(found) >= MOST_COUNTED else f"{len(found):,}"
    return f"{number} execution{'s' * (len(found) > 1)}"


def webhooks_that_wait(engine: Engine, tenant: str) -> str | None:
    """Describes how many deliveries wait in the database; None if there are none."""
    with read(engine, tenant) as connection:
        found = webhooks.waiting(connection, MOST_COUNTED, tenant=tenant)
    if not found:
        return None
    number = f"{MOST_COUNTED:,} or more" if found >= MOST_COUNTED else f"{found:,}"
    return f"{number} webhooks" if found > 1 else "1 webhook"

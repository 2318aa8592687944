"""Which executions are this process's own, where it runs no others: those it was asked for, and has not ended yet."""

from __future__ import annotations

import threading
from collections.abc import Iterable

from sqlalchemy import Engine

from store import executions
from store.identity import Identity
from workers.reading import read

MOST_COUNTED = 1000


class Own:
    """Shared by the threads of a process."""

    def __init__(self) -> None:
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

"""Which executions are this process's own, where it runs no others: those it was asked for, and has not ended yet."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from uuid import UUID


class Own:
    """Ids, shared by the threads of a process."""

    def __init__(self) -> None:
        self._ids: set[UUID] = set()
        self._lock = threading.Lock()

    def add(self, ids: Iterable[UUID]) -> None:
        """These were asked for here."""
        with self._lock:
            self._ids.update(ids)

    def discard(self, execution_id: UUID) -> None:
        """This one has ended."""
        with self._lock:
            self._ids.discard(execution_id)

    @property
    def ids(self) -> list[UUID]:
        """All of them."""
        with self._lock:
            return list(self._ids)

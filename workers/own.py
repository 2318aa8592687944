"""Which executions are this process's own, where it runs no others: those it was asked for, and has not ended yet."""

from __future__ import annotations

import threading
from collections.abc import Iterable

from store.identity import Identity


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

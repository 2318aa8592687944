"""What a process serves of all that waits: lanes, and programs by id, adapter or environment; by default everything.

What it does not serve waits for a process that does.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable
from typing import Final, NamedTuple
from uuid import UUID

from sqlalchemy import Connection, select

from dspex.contract.options import Lane
from store.database.identity import Identity, is_one_of
from store.queues.services import NO_ENVIRONMENT, Needs, Service
from store.tables import programs

REMEMBERED_SECONDS: Final = 2.0
"""For how long a process remembers which program it serves, as a program may get another adapter or environment."""
MOST_REMEMBERED: Final = 10_000


class _Known(NamedTuple):
    """Whether a program is served, as known until then."""

    serves: bool
    until: float


_UNKNOWN: Final = _Known(serves=False, until=float("-inf"))
_SERVED: Final = _Known(serves=True, until=float("inf"))


class Serving:
    """What a process serves. What is empty restricts nothing.

    Args:
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        lanes: Iterable[Lane] = (),
        programs: Iterable[UUID] = (),
        adapters: Iterable[str] = (),
        environments: Iterable[str] = (),
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.lanes = frozenset(lane.number for lane in lanes) or frozenset(lane.number for lane in Lane)
        self._service = Service(
            programs=frozenset(programs), adapters=frozenset(adapters), environments=frozenset(environments)
        )
        self._clock = clock
        self._known: dict[Identity, _Known] = {}

    @property
    def by_program(self) -> bool:
        """Whether it serves some programs only."""
        return any(self._service)

    def takes(self, lane: int, program: Identity) -> bool:
        """Whether it is known to serve this program in this lane. Thread-safe, and takes microseconds."""
        if lane not in self.lanes:
            return False
        known = self._known.get(program, _UNKNOWN) if self.by_program else _SERVED
        return known.serves and known.until > self._clock()

    def refuses(self, lane: int, program: Identity) -> bool:
        """Whether it is known not to. Thread-safe."""
        known = self._known.get(program, _UNKNOWN) if self.by_program else _SERVED
        return lane not in self.lanes or (not known.serves and known.until > self._clock())

    def served(self, connection: Connection, asked: Collection[Identity]) -> set[Identity]:
        """Those of these programs that it serves. For one thread."""
        now = self._clock()
        found = {one: self._known.get(one, _UNKNOWN) for one in asked}
        if unknown := [one for one, known in found.items() if known.until <= now]:
            read = self._read(connection, unknown)
            found |= {one: _Known(serves, now + REMEMBERED_SECONDS) for one, serves in read.items()}
            for one in unknown:
                self._known.pop(one, None)
                self._known[one] = found[one]
            while len(self._known) > MOST_REMEMBERED:
                del self._known[next(iter(self._known))]
        return {one for one, known in found.items() if known.serves}

    def _read(self, connection: Connection, asked: Collection[Identity]) -> dict[Identity, bool]:
        """Whether it serves each. One that is gone is served, as its executions are to be ended."""
        needs = {one: Needs(0, one.id, None, None) for one in asked}
        if self._service.adapters or self._service.environments:
            c = programs.c
            read = select(c.id, c.tenant, c.adapter_type, c.configuration["environment"].as_string().label("its"))
            for row in connection.execute(read.where(is_one_of(programs, asked))):
                needs[Identity(row.id, row.tenant)] = Needs(0, row.id, row.adapter_type, row.its or NO_ENVIRONMENT)
        return {one: self._service.takes(its) for one, its in needs.items()}

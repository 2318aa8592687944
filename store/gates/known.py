"""The gates that a process knows. Without any, a choice and a claim cost a look at an empty list.

It may be half a second old. So the statement of each claim returns when the gates were changed last, as it saw them.
If that is news, the list is read again, and what must not run is given back in the same transaction. The statement of a
choice takes nothing then. A choice locks its gates, and reads them again; the list only says which these may be.
"""

from __future__ import annotations

import time
from bisect import bisect_right
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple, Protocol

from sqlalchemy import Connection, func, or_, select

from dspex.contract.options import Lane
from store.database.identity import Identity
from store.gates.labels import Labels, gated, labels_of
from store.gates.rows import EVERYTHING, LABEL, LANE, LIMITS, LM, WORKER, GateKey
from store.gates.scopes import Called, Subject, called_by, keys_of
from store.tables import gates

SECONDS: Final = 0.5
"""How old the list may be."""
PROGRAM_SECONDS: Final = 2.0
"""For how long the LMs of a program are taken to be the same."""
MAX_PROGRAMS: Final = 10_000

_C = gates.c
_VERSION = select(func.count(), func.sum(_C.lock_version), func.max(_C.updated_at).label("changed_at"))
CHANGED_AT = select(func.max(_C.updated_at)).scalar_subquery()
"""When the gates were changed last: later with each change that is committed. NULL: there are none."""
_COUNTED = or_(_C.closed_until.is_not(None), *(_C[name].is_not(None) for name in LIMITS)).label("counted")


class Claimed(Protocol):
    """What the statement of a claim saw."""

    @property
    def gates_at(self) -> datetime | None:
        """`CHANGED_AT`."""

    @property
    def backend_id(self) -> str | None:
        """That of its program."""


class _Known(NamedTuple):
    """An immutable state of the list, since several threads read it."""

    version: Any = None
    changed_at: Any = None
    keys: frozenset[str] = frozenset()
    counted: frozenset[str] = frozenset()
    paused: frozenset[str] = frozenset()
    open: tuple[str, ...] = ()
    has_lms: bool = False
    labels: frozenset[tuple[str, str]] = frozenset()


class KnownGates:
    """The list of one process. One thread refreshes it, any may ask.

    Args:
        worker: the name of the process in its leases.
    """

    def __init__(self, worker: str = "") -> None:
        self._worker = GateKey(WORKER, worker).text
        self._now = _Known()
        self._refreshed = -SECONDS
        self.built: dict[str, Called] = {}
        """The LMs of a program by its backend, which calls the same ones for ever."""
        self.beginning: dict[str, tuple[int, frozenset[str]]] = {}
        """Gates with new limits: their version, and the claims that may not have seen it; `store.gates.beginning`."""
        self._programs: dict[Identity, tuple[float, Called]] = {}
        self.groups: dict[str, Labels] = {}
        """The labels that a group of a queue stands for; see `store.executions.grouping`."""
        self.grouped: dict[tuple[str, str], float] = {}
        """Since when the gate of a label is known; below 0: all that waits with the label is grouped."""
        self.freed: set[str] = set()
        """Gates of which this process has given slots back since it chose last."""
        self.holding: set[str] = set()
        """Gates for which something waited when this process looked at them last."""
        self.gave_slots = False
        """Whether what this process has chosen last holds slots."""
        self.cursor = ""
        """Up to which gate the last choice has looked for room."""

    def __bool__(self) -> bool:
        return bool(self._now.keys)

    @property
    def keys(self) -> frozenset[str]:
        """The keys of all gates, also of those that only have to let go what they held."""
        return self._now.keys

    @property
    def labels(self) -> frozenset[tuple[str, str]]:
        """The tenant and the name of each gate of a label."""
        return self._now.labels

    @property
    def counted(self) -> frozenset[str]:
        """The keys of the gates that have slots."""
        return self._now.counted

    def next_open(self, most: int) -> Sequence[str]:
        """The next gates that are not paused, up to so many, in turn."""
        ordered = self._now.open
        at = bisect_right(ordered, self.cursor)
        turn = (ordered[at : at + most] + ordered[:at])[:most]
        self.cursor = turn[-1] if turn else ""
        return turn

    @property
    def limits_work(self) -> bool:
        """Whether what runs here now holds slots of limits, as far as is known."""
        return self.gave_slots and bool(self._now.counted)

    @property
    def let_go(self) -> bool:
        """Whether this process has given a slot back that something may wait for."""
        return not self.freed.isdisjoint(self.holding)

    @property
    def stopped(self) -> bool:
        """Whether this process chooses nothing: all is paused, or its worker is."""
        return GateKey(EVERYTHING).text in self._now.paused or self._worker in self._now.paused

    @property
    def lanes_paused(self) -> frozenset[int]:
        """The numbers of the lanes of which nothing is chosen."""
        return frozenset(lane.number for lane in Lane if GateKey(LANE, lane).text in self._now.paused)

    @property
    def changed_at(self) -> datetime | None:
        """`CHANGED_AT`, as it was when the list was read."""
        changed_at: datetime | None = self._now.changed_at
        return changed_at

    def covers(self, claim: Claimed) -> bool:
        """Whether the list had all that the statement of a claim saw: its gates, and the LMs of its program."""
        if claim.gates_at != self._now.changed_at:
            return False
        return not self._now.has_lms or claim.backend_id is None or claim.backend_id in self.built

    def refresh(self, connection: Connection, *, anyway: bool = False) -> bool:
        """Read the list again if it is too old, or `anyway`. Reads one row unless something has changed.

        Returns:
            Whether something has changed.
        """
        now, before = time.monotonic(), self._now
        if not anyway and now - self._refreshed < SECONDS:
            return False
        version = tuple(connection.execute(_VERSION).one())
        if version != before.version:
            rows = connection.execute(select(_C.key, _C.kind, _C.tenant, _C.name, _C.paused, _COUNTED)).all()
            self._now = _Known(
                version,
                version[-1],
                frozenset(row.key for row in rows),
                frozenset(row.key for row in rows if row.counted),
                frozenset(row.key for row in rows if row.paused),
                tuple(sorted(row.key for row in rows if not row.paused)),
                any(row.kind == LM for row in rows),
                frozenset((row.tenant, row.name) for row in rows if row.kind == LABEL),
            )
        self._refreshed = now
        return self._now is not before

    def may_begin(
        self, subject: Subject, metadata: Mapping[str, str] | None = None, *, backend_id: str | None = None
    ) -> bool:
        """Whether no gate is known for it. If there is one, or its LMs are not known, it has to wait to be chosen.

        Args:
            backend_id: that of its claim, if it is claimed.
        """
        if not self._now.keys:
            return True
        if self.stopped:
            return False
        lms: Collection[str] = ()
        if self._now.has_lms:
            at, called = self._programs.get(Identity(subject.program_id, subject.tenant), (0.0, None))
            if backend_id is not None:
                called = self.built.get(backend_id)
            elif time.monotonic() - at > PROGRAM_SECONDS:
                return False
            if called is None:
                return False
            lms = called.lms
        labels = gated(self._now.labels, subject.tenant, metadata)
        return not labels and self._now.keys.isdisjoint(keys_of(subject, lms))

    def labels_of(self, connection: Connection, subjects: Iterable[Subject]) -> Mapping[str, Labels]:
        """The labels of queues, by their group."""
        new = {one.group_key: one for one in subjects if one.group_key and one.group_key not in self.groups}
        if new:
            self.groups |= labels_of(connection, (one.queue for one in new.values()))
        return self.groups

    def called_by(self, connection: Connection, which: Collection[Identity]) -> dict[Identity, Called]:
        """The LMs of programs; nothing where no gate is of an LM."""
        if not self._now.has_lms:
            return {}
        for kept in (self.built, self._programs):
            if len(kept) > MAX_PROGRAMS:
                kept.clear()
        called, now = called_by(connection, which, self.built), time.monotonic()
        for identity in which:
            self._programs[identity] = now, called.get(identity, Called())
        return called

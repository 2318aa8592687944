"""Gates in a choice: which of them have room, how many executions of each queue they let begin, and their slots.

The gates of what is found are locked in the order of their keys, before anything is taken. So what runs is never more
than a limit, whoever chooses at the same time. A queue without room gets the gate as its holder, and is not looked at
again before that gate has room.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any, Final, NamedTuple

from sqlalchemy import (
    Boolean,
    Connection,
    Float,
    Integer,
    String,
    Uuid,
    and_,
    case,
    delete,
    exists,
    false,
    func,
    literal_column,
    null,
    or_,
    select,
    true,
    update,
)

from dspex import ExecutionStatus
from store.column_types import database_now, seconds_until
from store.database.batch import encode, execute, records, upsert
from store.database.identity import Identity
from store.gates.beginning import claims_before, running
from store.gates.known import KnownGates
from store.gates.rooms import Levels, Settled, levels_of
from store.gates.rows import LIMITS
from store.gates.scopes import Called, Subject, keys_of
from store.gates.steering import wake
from store.tables import NOW, executions, gates, queues, slots

MOST_LOOKED_AT: Final = 32
"""In how many gates a choice looks for room, besides those of which this process has given slots back."""
SWEEP_SECONDS: Final = 1.0
"""How often the slots of a gate are looked through for executions that do not run any more."""

_ARCHIVED: Final[Any] = literal_column("'archived'")
"""The holder of `store.queues.archived`, which knows of gates. It is left to those who end what waits there."""

_G, _S, _E, _Q = gates.c, slots.c, executions.c, queues.c
_MINE = _S.gate_key == _G.key


def _count(*conditions: Any) -> Any:
    return select(func.count()).where(_MINE, *conditions).scalar_subquery()


_LEVELS = select(
    *_G,
    _count(_S.outcome.is_(None)).label("held"),
    _count(_S.outcome.is_(None), _S.probe).label("probes"),
    _count(_S.outcome.is_not(None)).label("ended"),
    seconds_until(_G.closed_until).label("closed_for"),
    seconds_until(_G.filled_at).label("filled_for"),
    seconds_until(_G.shrunk_at).label("shrunk_for"),
    seconds_until(_G.swept_at).label("swept_for"),
)
_RUNS = exists(
    select(_E.id).where(
        _E.id == _S.execution_id,
        _E.tenant == _S.tenant,
        _E.lock_version == _S.lock_version,
        _E.status.concat("") == ExecutionStatus.RUNNING,  # found by its id, as in `store.executions.statements.finish`
    )
)


def with_room(connection: Connection, known: KnownGates, places: int) -> dict[str, int]:
    """The gates that hold queues and may have room, and for how many. `Choice` looks again, under their locks.

    Looks at a bounded number of gates, beginning after those of the last time.
    """
    turn = known.next_open(MOST_LOOKED_AT)
    freed, known.freed = known.freed, set()
    holds = exists(select(_Q.program_id).where(_Q.holder == _G.key))
    looked_at = {*turn, *freed}
    found = connection.execute(_LEVELS.where(_G.key.in_(looked_at), holds).order_by(_G.key)).all()
    known.holding = (known.holding & known.keys - looked_at) | {row.key for row in found}
    rooms = ((row.key, _perhaps(row)) for row in found)
    return {key: int(min(places, room)) for key, room in rooms if room > 0}


def _perhaps(row: Any) -> float:
    levels = levels_of(row)
    if levels.paused:
        return 0
    # What has ended, or was lost, gives room when it is settled; nobody knows how much.
    return math.inf if row.ended or _begins(row) or (row.held and _is_sweep_due(row)) else levels.room()


def _is_sweep_due(row: Any) -> bool:
    return bool(row.swept_for is None or row.swept_for < -SWEEP_SECONDS)


def _begins(row: Any) -> bool:
    return row.swept_for is None and any(getattr(row, name) is not None for name in LIMITS)


class _Passed(NamedTuple):
    """The gates that what waits in a queue passes; `falls_back`: see `Called`."""

    keys: tuple[str, ...] = ()
    falls_back: bool = False


class Choice:
    """The gates of one choice. Ask `admit` for what was found, take it, then tell `taken`: in one transaction."""

    def __init__(self, connection: Connection, known: KnownGates) -> None:
        self._connection = connection
        self._known = known
        self._levels: dict[str, Levels] = {}
        self._passed: dict[Subject, _Passed] = {}
        self._promised = Counter[str]()
        self._swept: set[str] = set()
        self._beginning: set[str] = set()
        self._gave = False
        self._shut: set[str] = set()

    @property
    def begins(self) -> bool:
        """Whether a gate lets nothing begin for a moment, until what runs can be counted."""
        return bool(self._beginning)

    def admit(self, wanted: Sequence[tuple[Subject, int]]) -> list[int]:
        """How many executions of each may be taken now, at most as many as wanted.

        Those of which none may be taken are held from now on by the gate that has no room for them.
        """
        subjects = [subject for subject, _ in wanted]
        programs = {Identity(subject.program_id, subject.tenant) for subject in subjects}
        called = self._known.called_by(self._connection, programs)
        groups = self._known.labels_of(self._connection, subjects)
        for subject in subjects:
            lms, falls_back = called.get(Identity(subject.program_id, subject.tenant), Called())
            there = sorted(
                key for key in keys_of(subject, lms, groups.get(subject.group_key, ())) if key in self._known.keys
            )
            self._passed[subject] = _Passed(tuple(there), falls_back)
        locked_by_others = self._lock({key for subject in subjects for key in self._passed[subject].keys})
        held, may = dict[Subject, str](), list[int]()
        for subject, most in wanted:
            keys, falls_back = self._passed[subject]
            if not locked_by_others.isdisjoint(keys):
                may.append(0)
                continue
            rooms = {key: self._levels[key].room(falls_back=falls_back) - self._promised[key] for key in keys}
            number = int(max(0, min(most, *rooms.values()))) if rooms else most
            self._promised.update(dict.fromkeys(keys, number))
            if number < most:
                tightest = min(rooms, key=lambda key: (rooms[key], key))
                self._known.holding.add(tightest)
                if number == 0:
                    held[subject] = tightest
            may.append(number)
        if held:
            _hold(self._connection, held)
        return may

    def taken(self, chosen: Iterable[tuple[Subject, Identity, int]]) -> None:
        """Give slots to what was taken, by its queue, identity and lock_version, and write what the gates have left.

        What `admit` allowed and a queue did not have is free again: it may be asked for others.
        """
        self._promised.clear()
        new, some = list[dict[str, Any]](), False
        for subject, identity, lock_version in chosen:
            some = True
            keys, falls_back = self._passed[subject]
            for key in keys:
                levels = self._levels[key]
                if not levels.is_counted:
                    continue
                probe = levels.closed_for is not None and not falls_back
                reserved = 0.0 if levels.tokens_per_minute is None else levels.estimate
                slot = {"gate_key": key, "execution_id": identity.id, "tenant": identity.tenant}
                new.append(slot | {"lock_version": lock_version, "reserved": reserved, "probe": probe})
                self._levels[key] = levels.taken(1, probe=probe)
        self._gave |= bool(new)
        if self._gave or some:
            self._known.gave_slots = self._gave
        self._give(new)
        written = [
            {
                "key": key,
                "requests_left": levels.requests_left,
                "tokens_left": levels.tokens_left,
                "tokens_each": levels.tokens_each,
                "allowed": levels.allowed,
                "shrunk": levels.since_shrunk == 0.0,
                "swept": key in self._swept,
                "opened": key in self._shut and levels.closed_for is None,
            }
            for key, levels in sorted(self._levels.items())
            if key in self._shut or (levels.is_counted and (levels.changes or key in self._swept))
        ]
        if written:
            execute(self._connection, _write(self._connection.dialect.name), encode(written))
        if any(row["opened"] for row in written):
            wake(self._connection)

    def _give(self, new: Sequence[Mapping[str, Any]]) -> None:
        if new:
            take = _take(self._connection.dialect.name, upsert(self._connection))
            execute(self._connection, take, encode(new))

    def _lock(self, keys: Collection[str]) -> set[str]:
        """Lock gates, settle their slots, and read them. Those that are gone hold nothing.

        The first call waits for their locks. Later ones do not, as they come out of the order of the keys.

        Returns:
            The keys of gates that others have locked.
        """
        wanted = sorted(set(keys) - self._levels.keys())
        if not wanted:
            return set()
        limits = [_G[name] for name in LIMITS]
        statement = select(_G.key, _G.lock_version, seconds_until(_G.swept_at).label("swept_for"), *limits)
        statement = statement.where(_G.key.in_(wanted))
        later = bool(self._levels)
        locked = self._connection.execute(statement.order_by(_G.key).with_for_update(skip_locked=later)).all()
        there = {row.key for row in locked}
        missed = {key for key in wanted if key not in there}
        for key in missed:
            self._levels[key] = Levels("")
        if locked:
            new = [row for row in locked if _begins(row)]
            wait = {row.key for row in new if claims_before(self._connection, self._known, row.key, row.lock_version)}
            self._beginning |= wait
            swept = [row.key for row in locked if _is_sweep_due(row) and row.key not in wait]
            self._swept.update(swept)
            back = _settle(self._connection, there, swept)
            self._count({row.key for row in new} - wait)
            for row in self._connection.execute(_LEVELS.where(_G.key.in_(there))):
                levels = replace(levels_of(row), begins=row.key in wait)
                if levels.closed_for is not None:
                    self._shut.add(row.key)
                for slot in back.get(row.key, ()):
                    levels = levels.settled(slot)
                self._levels[row.key] = levels
        if not (later and missed):
            return set()
        busy = set(self._connection.execute(select(_G.key).where(_G.key.in_(missed))).scalars())
        for key in busy:
            del self._levels[key]
        return busy

    def _count(self, keys: Collection[str]) -> None:
        """Give slots to what runs already. It has reserved nothing of a minute: what it uses counts when it ends."""
        if keys:
            none = {"reserved": 0.0, "probe": False}
            self._give(
                [
                    {"gate_key": key, "execution_id": row.id, "tenant": row.tenant, "lock_version": row.lock_version}
                    | none
                    for key, row in running(self._connection, self._known, keys)
                ]
            )


def _settle(connection: Connection, keys: Collection[str], swept: Collection[str]) -> Mapping[str, list[Settled]]:
    """Take the slots away of what has ended and, of some gates, of what does not run any more."""
    lost = and_(_S.gate_key.in_(swept), ~_RUNS) if swept else false()
    told = (_S.gate_key, _S.reserved, _S.outcome, _S.calls, _S.tokens, _S.probe)
    gone = (
        delete(slots)
        .where(_S.gate_key.in_(keys), or_(_S.outcome.is_not(None), lost))
        .returning(*told, seconds_until(_S.inserted_at).label("at"))
    )
    back = dict[str, list[Settled]]()
    for row in connection.execute(gone):
        settled = Settled(row.reserved, row.outcome, row.calls, row.tokens, row.probe, -row.at)
        back.setdefault(row.gate_key, []).append(settled)
    return back


_HELD: Final[dict[str, Any]] = {
    **{name: _Q[name].type for name in ("tenant", "program_id", "lane", "group_key")},
    "holder": _Q.holder.type,
}


def _hold(connection: Connection, held: Mapping[Subject, str]) -> None:
    """Make gates the holders of queues. Leaves queues that are locked: they are found again."""
    rows = [subject.queue | {"holder": key} for subject, key in held.items()]
    execute(connection, _holding(connection.dialect.name), encode(rows))


@lru_cache(maxsize=2)
def _holding(dialect: str) -> Any:
    r, key = records(dialect, _HELD), tuple(queues.primary_key)
    found = (
        select(*key, r.c.holder.label("by"))
        .join_from(r, queues, and_(*(column == r.c[column.name] for column in key)))
        .where(_Q.holder.is_not(None), _Q.holder != r.c.holder, _Q.holder != _ARCHIVED)
        .with_for_update(of=queues, skip_locked=True)
        .cte("found")
    )
    changed = update(queues).where(*(column == found.c[column.name] for column in key))
    return changed.values(holder=found.c.by)


@lru_cache(maxsize=2)
def _take(dialect: str, insert: Any) -> Any:
    """Inserts slots. One of an earlier claim, that was given back or lost, becomes that of this one."""
    columns: dict[str, Any] = {
        "gate_key": String(),
        "execution_id": Uuid(),
        "tenant": String(),
        "lock_version": Integer(),
        "reserved": Float(),
        "probe": Boolean(),
    }
    r = records(dialect, columns)
    # SQLite needs a WHERE here, to tell ON CONFLICT from a join's ON.
    rows = select(*r.c, NOW).where(r.c.gate_key.is_not(None))
    new = insert(slots).from_select([*columns, "inserted_at"], rows)
    written = {name: new.excluded[name] for name in ("lock_version", "reserved", "probe", "inserted_at")}
    none = dict.fromkeys(("outcome", "calls", "tokens"), null())
    return new.on_conflict_do_update(index_elements=list(slots.primary_key), set_=written | none)


@lru_cache(maxsize=2)
def _write(dialect: str) -> Any:
    numbers = ("requests_left", "tokens_left", "tokens_each", "allowed")
    columns: dict[str, Any] = {"key": String(), **{name: Float() for name in numbers}}
    r = records(dialect, columns | dict.fromkeys(("shrunk", "swept", "opened"), Boolean()))
    opened = r.c.opened == true()

    def where(condition: Any, value: Any, before: Any) -> Any:
        return case((condition, value), else_=before)

    return (
        update(gates)
        .where(_G.key == r.c.key)
        .values(
            **{name: r.c[name] for name in numbers},
            filled_at=database_now(),
            shrunk_at=where(r.c.shrunk == true(), database_now(), _G.shrunk_at),
            swept_at=where(r.c.swept == true(), database_now(), _G.swept_at),
            closed_until=where(opened, None, _G.closed_until),
            closures=where(opened, 0, _G.closures),
            # Not `updated_at`, which grows in the order of the commits: nobody has to know at once.
            lock_version=where(opened, _G.lock_version + 1, _G.lock_version),
        )
    )

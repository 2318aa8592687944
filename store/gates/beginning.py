"""What runs already when a gate gets its limits: it is counted from then on, before anything else may begin.

A claim returns whether its statement saw the gate (`store.gates.known.KnownGates.covers`). One whose statement began
before may still be about to commit. So a new limit lets nothing begin until these have ended, and then gives slots to
all that runs: no more than the limit runs from then on, as soon as enough of the earlier ones have ended.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

from sqlalchemy import Connection, select

from store.database.identity import Identity
from store.gates.known import KnownGates
from store.gates.scopes import Called, Subject, keys_of
from store.statuses import IS_EXTERNAL, RUNNING
from store.tables import executions

_C = executions.c
_RUNNING = select(
    _C.id, _C.tenant, _C.program_id, _C.lane, _C.group_key, _C.metadata, _C.lock_version, _C.backend_id
).where(RUNNING, ~IS_EXTERNAL)

_WRITING: Final = """
SELECT w.virtualtransaction FROM pg_locks AS w
JOIN pg_locks AS r ON r.virtualtransaction = w.virtualtransaction AND r.database = w.database
WHERE w.database = (SELECT oid FROM pg_database WHERE datname = current_database()) AND w.pid <> pg_backend_pid()
AND w.relation = 'executions'::regclass AND w.mode = 'RowExclusiveLock' AND w.granted
AND r.relation = 'gates'::regclass AND r.mode = 'AccessShareLock' AND r.granted
"""
"""The transactions that have claimed executions, and read the gates for it. PostgreSQL locks the tables of a statement
before it takes the snapshot by which the statement sees them, and holds the locks until the transaction ends.

https://www.postgresql.org/docs/current/explicit-locking.html, https://www.postgresql.org/docs/current/view-pg-locks.html
"""


def claims_before(connection: Connection, known: KnownGates, key: str, version: int) -> bool:
    """Whether claims may still be about to commit whose statements have not seen this version of a gate.

    SQLite has one transaction at a time.
    """
    if connection.dialect.name != "postgresql":
        return False
    now = frozenset(connection.exec_driver_sql(_WRITING).scalars())
    at, before = known.beginning.get(key, (version, now))
    if at != version:
        before = now
    if left := before & now:
        known.beginning[key] = version, left
        return True
    known.beginning.pop(key, None)
    return False


def running(connection: Connection, known: KnownGates, keys: Collection[str]) -> list[tuple[str, Any]]:
    """The rows of what runs and would have to pass these gates now, each with the gate's key."""
    rows = connection.execute(_RUNNING).all()
    called = known.called_by(connection, {Identity(row.program_id, row.tenant) for row in rows})
    found = list[tuple[str, Any]]()
    for row in rows:
        its = called.get(Identity(row.program_id, row.tenant), Called())
        its = known.built.get(row.backend_id, its)
        subject = Subject(row.tenant, row.program_id, row.lane, row.group_key)
        labels = (row.metadata or {}).items()
        found += [(key, row) for key in keys_of(subject, its.lms, labels) if key in keys]
    return found

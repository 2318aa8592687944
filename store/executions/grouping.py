"""Puts what waits with a label that has a gate into a queue of its own.

The group is in the row of an execution from its acceptance on; what waited before there was such a gate is grouped
once, when a process learns of the gate.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping
from functools import lru_cache
from typing import Any, Final

from sqlalchemy import Connection, and_, select, update

from store.database.batch import encode, execute, records
from store.database.identity import Identity, is_one_of
from store.database.tenancy import ALL
from store.gates import KnownGates
from store.gates.labels import Labels, gated, group_of
from store.queues.keys import KEY, KEY_TYPES, QueueKey
from store.queues.offers import offer
from store.statuses import PENDING
from store.tables import executions, queues

AT_ONCE: Final = 5_000
"""How many executions are grouped in one transaction."""
KNOWN_SECONDS: Final = 5.0
"""After this time every process knows of a gate, and a transaction that did not has ended."""

_C = executions.c
_ROW = (_C.id, _C.tenant, _C.program_id, _C.lane, _C.group_key, _C.run_at, _C.metadata)
_WAITING = and_(PENDING, _C.run_at.is_not(None))


def group_new(
    connection: Connection, known: KnownGates, accepted: Iterable[tuple[Identity, Mapping[str, str] | None]]
) -> None:
    """Put those of new executions into queues of their own that wait, and have labels with gates."""
    which = [identity for identity, metadata in accepted if gated(known.labels, identity.tenant, metadata)]
    if which:
        these = select(*_ROW).where(is_one_of(executions, which), _WAITING)
        _group(connection, known.labels, connection.execute(these))


def group_waiting(connection: Connection, known: KnownGates) -> None:
    """Group what waits, after a label has got a gate: until a look that began when all processes knew of it."""
    now = time.monotonic()
    for gate in known.labels:
        since = known.grouped.setdefault(gate, now)
        if since < 0:
            continue
        groups = [group for group, labels in known.groups.items() if tuple(gate[1].split("=", 1)) in labels]
        found = _group_with(connection, known.labels, gate, groups)
        known.groups |= found
        if not found and now - since > KNOWN_SECONDS:
            known.grouped[gate] = -1.0
    for gone in known.grouped.keys() - known.labels:
        del known.grouped[gone]


def _group_with(
    connection: Connection, gates: Collection[tuple[str, str]], gate: tuple[str, str], groups: Collection[str]
) -> dict[str, Labels]:
    """Put what waits with the label of a gate into queues of its own, up to `AT_ONCE` of them. Reads all that waits.

    Args:
        groups: those that stand for this label, among others: what is in one of them is not looked at.

    Returns:
        The labels of further such groups; nothing: all is grouped.
    """
    tenant, (name, _, value) = gate[0], gate[1].partition("=")
    its = [_WAITING, _C.metadata[name].as_string() == value, _C.group_key.not_in(groups)]
    if tenant != ALL:
        its.append(_C.tenant == tenant)
    return _group(connection, gates, connection.execute(select(*_ROW).where(*its).limit(AT_ONCE)))


def _group(connection: Connection, gates: Collection[tuple[str, str]], rows: Iterable[Any]) -> dict[str, Labels]:
    groups, moved, offered = dict[str, Labels](), list[dict[str, Any]](), list[tuple[QueueKey, Any]]()
    for row in rows:
        labels = gated(gates, row.tenant, row.metadata)
        group = group_of(labels)
        if labels and group != row.group_key:
            groups[group] = labels
            moved.append({"id": row.id, "tenant": row.tenant, "group_key": group})
            offered.append((QueueKey(row.tenant, row.program_id, row.lane, group), row.run_at))
    if moved:
        execute(connection, _moving(connection.dialect.name), encode(moved))
        offer(connection, offered)
        told = [key._asdict() | {"labels": groups[key.group_key]} for key in {key for key, _ in offered}]
        execute(connection, _telling(connection.dialect.name), encode(told))
    return groups


@lru_cache(maxsize=2)
def _moving(dialect: str) -> Any:
    r = records(dialect, {name: _C[name].type for name in ("id", "tenant", "group_key")})
    its = and_(_C.id == r.c.id, _C.tenant == r.c.tenant, _C.status.concat("") == "pending")
    return update(executions).where(its).values(group_key=r.c.group_key)


@lru_cache(maxsize=2)
def _telling(dialect: str) -> Any:
    q, r = queues.c, records(dialect, KEY_TYPES | {"labels": queues.c.labels.type})
    return update(queues).where(*(q[name] == r.c[name] for name in KEY)).values(labels=r.c.labels)

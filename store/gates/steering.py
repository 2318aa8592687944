"""What operators do with gates: pause, resume, limit, list. Effective in every process within half a second.

Each locks the gate's row, as a choice does. So a choice either comes before, or knows of the change.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Final

from sqlalchemy import Connection, Text, bindparam, delete, false, func, null, or_, select, tuple_, update

from dspex.text import storable
from store.column_types import database_now, later_than
from store.database.batch import upsert
from store.gates.rows import LIMITS, MAX_REASON, Gate, GateKey, Limits, checked_key, checked_limits, gate_of
from store.tables import NOW, gates, queues, slots

CHANNEL: Final = "dspex_queues"
"""On PostgreSQL, idle processes listen to it, and look for what may run."""

BY_SETTINGS: Final = "DSPEX_LIMITS"
"""Who has set the limits that come from the settings of workers."""

BATCH: Final = 1000
"""How many queues are made ready at a time."""

_ORDER: Final = 5_718_306_201
"""The advisory lock of all who change gates; any number that nothing else uses."""

_C = gates.c
_HAS_EFFECT = or_(
    _C.paused, _C.closed_until.is_not(None), *(_C[name].is_not(None) for name in LIMITS if name != "least_in_flight")
)
_NO_PAUSE: Final[dict[str, Any]] = {
    "paused": false(),
    "paused_by": null(),
    "paused_reason": null(),
    "paused_at": null(),
}

_NO_LIMITS: Final[dict[str, Any]] = dict.fromkeys((*LIMITS, "limited_by", "allowed"), null())


def pause(connection: Connection, key: GateKey, *, by: str, reason: str | None = None) -> Gate:
    """Choose nothing more of what the gate is of. What runs goes on. Of one that is paused, only the reason changes.

    Raises:
        InvalidValues: the key is not one.
    """
    before = made(connection, key)
    why = None if reason is None else storable(reason)[:MAX_REASON]
    if before.paused:
        return before if why is None else change(connection, key, paused_reason=why)
    return change(connection, key, paused=True, paused_by=by, paused_reason=why, paused_at=database_now())


def resume(connection: Connection, key: GateKey, *, by: str) -> Gate | None:  # noqa: ARG001 - whoever may
    """Go on with what was paused. What it held is ready again, the first of it at once.

    Returns:
        The gate as it is now; None: it was not paused.
    """
    before = locked(connection, key)
    return _without(connection, key, _NO_PAUSE) if before is not None and before.paused else None


def set_limit(connection: Connection, key: GateKey, limits: Limits, *, by: str) -> Gate:
    """Replace the limits. What runs goes on, and counts.

    Raises:
        InvalidValues: the key is not one, or the limits cannot be.
    """
    wanted = checked_limits(limits)
    before = made(connection, key)
    if before.limits == wanted:
        return before
    # The buckets begin anew, as their size is another one; the number that adapts begins at its upper bound.
    anew: dict[str, Any] = dict.fromkeys(("allowed", "requests_left", "tokens_left", "filled_at"), null())
    if not before.limits:
        anew["swept_at"] = null()  # what runs has no slots yet, see `store.gates.beginning`
    changed = change(connection, key, **asdict(wanted), limited_by=by, **anew)
    wake(connection)
    return changed


def set_default_limit(connection: Connection, key: GateKey, limits: Limits) -> Gate:
    """Set the limits of a setting, unless somebody has set others. See `set_limit`."""
    before = locked(connection, key)
    if before is not None and before.limits and before.limited_by != BY_SETTINGS:
        return before
    return set_limit(connection, key, limits, by=BY_SETTINGS)


def remove_limit(connection: Connection, key: GateKey, *, by: str) -> Gate | None:  # noqa: ARG001 - whoever may
    """Take all limits away. What they held is ready again, the first of it at once.

    Returns:
        The gate as it is now; None: it had no limits.
    """
    before = locked(connection, key)
    return _without(connection, key, _NO_LIMITS) if before is not None and before.limits else None


def listing(connection: Connection, *, tenant: str | None = None) -> list[Gate]:
    """The gates that may hold something, by kind and name.

    Args:
        tenant: only those of this tenant; None: of all, and the operators'.
    """
    running = select(slots.c.gate_key, func.count().label("running")).where(slots.c.outcome.is_(None))
    held = running.group_by(slots.c.gate_key).subquery("held")
    found = select(gates, held.c.running).outerjoin(held, held.c.gate_key == _C.key).where(_HAS_EFFECT)
    if tenant is not None:
        found = found.where(_C.tenant == tenant)
    return [gate_of(row, row.running or 0) for row in connection.execute(found.order_by(_C.kind, _C.tenant, _C.name))]


def make_ready(connection: Connection, key: str, limit: int = BATCH) -> int:
    """Make queues that a gate has held ready; for one that holds nothing any more. Returns how many."""
    c, these = queues.c, tuple_(*queues.primary_key)
    held = select(*queues.primary_key).where(c.holder == key).limit(limit).with_for_update(skip_locked=True)
    return connection.execute(update(queues).where(these.in_(held)).values(holder="")).rowcount


def sweep(connection: Connection) -> int:
    """Remove gates without effect, once what they have held is ready. Each call takes a batch; the relay's tick.

    Returns:
        How many queues became ready.
    """
    idle = select(_C.key).where(~_HAS_EFFECT).order_by(_C.key).limit(16).with_for_update(skip_locked=True)
    keys, ready = list(connection.execute(idle).scalars()), 0
    for key in keys:
        ready += make_ready(connection, key)
    if keys:
        holds = select(queues.c.holder).where(queues.c.holder == _C.key).exists()
        connection.execute(delete(slots).where(slots.c.gate_key.in_(keys)))
        connection.execute(delete(gates).where(_C.key.in_(keys), ~_HAS_EFFECT, ~holds))
    if ready:
        wake(connection)
    return ready


def locked(connection: Connection, key: GateKey) -> Gate | None:
    """The gate, if there is one, but not what runs of it. Its row is locked until the transaction ends."""
    _take_turns(connection)
    row = connection.execute(select(gates).where(_C.key == key.text).with_for_update()).one_or_none()
    return None if row is None else gate_of(row)


def made(connection: Connection, key: GateKey) -> Gate:
    """The gate, locked as by `locked`. Makes it if there is none."""
    _take_turns(connection)
    named = {"key": checked_key(key).text, "kind": key.kind, "name": key.name, "tenant": key.tenant}
    new = upsert(connection)(gates).values(**named, inserted_at=NOW, updated_at=NOW)
    while True:  # until no other transaction has removed it in between
        connection.execute(new.on_conflict_do_nothing())
        if (gate := locked(connection, key)) is not None:
            return gate


def _without(connection: Connection, key: GateKey, values: dict[str, Any]) -> Gate:
    """The gate without its pause, or its limits. Lets go what it holds; the row stays until all is, see `sweep`."""
    gate = change(connection, key, **values)
    if not gate.has_effect:
        make_ready(connection, key.text)
    wake(connection)
    return gate


def change(connection: Connection, key: GateKey, **values: Any) -> Gate:
    """Change a gate that is locked, so that every process notices, see `store.gates.known.CHANGED_AT`."""
    others = gates.alias("others")
    latest = select(func.max(others.c.updated_at)).scalar_subquery()
    changed = update(gates).where(_C.key == key.text)
    changed = changed.values(**values, lock_version=_C.lock_version + 1, updated_at=later_than(latest))
    return gate_of(connection.execute(changed.returning(*_C)).one())


def _take_turns(connection: Connection) -> None:
    """Wait until no other transaction changes a gate, before any row of them is locked. SQLite has one writer.

    So the latest `updated_at` of all gates grows with each change that is committed.
    """
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_ORDER})")


def wake(connection: Connection) -> None:
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_notify(bindparam("channel", CHANNEL, Text), bindparam("none", "", Text))))

"""The handlers that read the backlog, what a waiting execution waits for, and which workers live."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from typing import Any

from sqlalchemy import Connection

from dspex import ExecutionStatus
from dspex.contract.backlog import Backlog, BacklogView, By, GetBacklog, Holder
from dspex.contract.results import Page, Waiting
from dspex.contract.workers import ListWorkers, WorkerView
from dspex.errors import Denied
from store.database.identity import Identity
from store.database.tenancy import ALL
from store.executions import Execution
from store.gates.rows import EVERYTHING, LANE, PROGRAM, TENANT, GateKey
from store.queues import figures, position, register
from store.queues.figures import Figures, Scope
from store.queues.unserved import Unserved, unserved
from workers.application.wiring import Application
from workers.handlers.registry import handles
from workers.security.authorization import EVERY_ROLE
from workers.security.request import Received

MOST_TOLD = 20
"""So many gates are told of a row."""


@handles(GetBacklog, roles=EVERY_ROLE)
def get_backlog(app: Application, received: Received[GetBacklog]) -> BacklogView:
    """Read the figures of what waits and runs.

    Raises:
        Denied: all tenants are asked for, and the sender sees one.
    """
    asked, tenant = received.command, received.tenant
    if asked.all_tenants:
        if not received.principal.fleet:
            raise Denied(f"all_tenants: '{received.principal.name}' sees tenant '{tenant}' alone")
        tenant = ALL
    scope = Scope(tenant, asked.program_id, asked.lane)
    with app.read(ALL) as connection:  # gates and workers are the operators'; the scope says whose the rest is
        lanes = figures.lanes(connection, scope)
        rows, after = tuple(lanes), None
        if asked.by is not By.LANE:
            found = figures.page(connection, figures.By(asked.by), scope, cursor=asked.cursor, limit=asked.limit)
            rows, after = found.items, found.next_cursor
        total, *items = _views(connection, asked.by, (figures.total(lanes), *rows), scope)
    return BacklogView(by=asked.by, total=total, items=tuple(items), next_cursor=after)


@handles(ListWorkers, roles=EVERY_ROLE)
def list_workers(app: Application, received: Received[ListWorkers]) -> Page[WorkerView]:
    """Read which worker processes live.

    Raises:
        Denied: the sender sees one tenant; workers are of all.
    """
    asked, principal = received.command, received.principal
    if not principal.fleet:
        raise Denied(f"workers are of all tenants, and '{principal.name}' sees '{received.tenant}' alone")
    with app.read(ALL) as connection:
        found = register.page(connection, asked.cursor, asked.limit + 1)
    items = tuple(WorkerView.model_validate(vars(worker)) for worker in found[: asked.limit])
    return Page[WorkerView](items=items, next_cursor=items[-1].name if len(found) > asked.limit else None)


def waiting_view(app: Application, execution: Execution) -> Waiting | None:
    """What an execution waits for; None: it does not wait for a worker."""
    if execution.status != ExecutionStatus.PENDING:
        return None
    with app.read(ALL) as connection:  # gates and workers are the operators'
        found = position.position(connection, execution.id, tenant=execution.tenant)
    if found is None:
        return None
    told = vars(found) | {"held_by": found.gate and scope_of(found.gate)}
    del told["gate"]
    return Waiting.model_validate(told)


def scope_of(key: str) -> str:
    """A gate for people: `lm fast`."""
    kind, _, name = key.split(":", 2)
    return f"{kind} {name}".strip()


def _views(connection: Connection, by: By, rows: Iterable[Figures], scope: Scope) -> list[Backlog]:
    """The views of these rows, of which the first is the total."""
    rows = list(rows)
    programs = [Identity(row.program_id, row.tenant) for row in rows if row.program_id and row.tenant]
    names = figures.names(connection, programs) if programs else {}
    held = [[], *figures.holders(connection, figures.By(by), rows[1:], scope)]  # of the total, what holds all of it
    keys = [_keys(row) for row in rows]
    paused = figures.paused(connection, {*chain(*keys, *held)})
    waits = any(row.waiting for row in rows)
    in_vain = unserved(connection, register.read(connection), scope) if waits else []
    return [
        Backlog.model_validate(
            {
                **_numbers(row),
                "name": names.get(Identity(row.program_id, row.tenant or "")) if row.program_id else None,
                "held_by": [
                    Holder(scope=scope_of(key), paused=key in paused)
                    for key in dict.fromkeys((*sorted(above & paused), *holding))
                ][:MOST_TOLD],
                "unserved": sorted({one.missing for one in in_vain if _is_of(one, row)}),
            }
        )
        for row, above, holding in zip(rows, keys, held, strict=True)
    ]


def _numbers(row: Figures) -> dict[str, Any]:
    return vars(row) | {"expected_seconds": row.expected_seconds}


def _is_of(one: Unserved, row: Figures) -> bool:
    pairs = ((row.tenant, one.tenant), (row.program_id, one.program_id), (row.lane, one.lane))
    return all(wanted is None or wanted == its for wanted, its in pairs)


def _keys(row: Figures) -> set[str]:
    """The gates that hold all of it, if they are paused."""
    gates = [GateKey(EVERYTHING)]
    if row.lane is not None:
        gates.append(GateKey(LANE, row.lane))
    if row.tenant is not None:
        gates += [GateKey(TENANT, row.tenant), GateKey(TENANT, row.tenant, row.tenant)]
    if row.program_id is not None and row.tenant is not None:
        gates += [GateKey(PROGRAM, str(row.program_id), tenant) for tenant in (ALL, row.tenant)]
    return {gate.text for gate in gates}

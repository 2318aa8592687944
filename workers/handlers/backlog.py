"""The handler that reads the backlog, and what a waiting execution waits for."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sqlalchemy import Connection

from dspex import ExecutionStatus
from dspex.contract.backlog import Backlog, BacklogView, By, GetBacklog, Holder
from dspex.contract.results import Waiting
from dspex.errors import Denied
from store.database.identity import Identity
from store.database.tenancy import ALL
from store.executions import Execution
from store.gates.rows import EVERYTHING, LANE, PROGRAM, TENANT, GateKey
from store.queues import figures, position
from store.queues.figures import Figures, Scope
from workers.application.wiring import Application
from workers.handlers.registry import handles
from workers.security.authorization import EVERY_ROLE
from workers.security.request import Received


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
    with app.read(tenant) as connection:
        lanes = figures.lanes(connection, scope)
        rows, after = tuple(lanes), None
        if asked.by is not By.LANE:
            found = figures.page(connection, figures.By(asked.by), scope, cursor=asked.cursor, limit=asked.limit)
            rows, after = found.items, found.next_cursor
        total, *items = _views(connection, (figures.total(lanes), *rows), asked)
    return BacklogView(by=asked.by, total=total, items=tuple(items), next_cursor=after)


def waiting_view(app: Application, execution: Execution) -> Waiting | None:
    """What an execution waits for; None: it does not wait for a worker."""
    if execution.status != ExecutionStatus.PENDING:
        return None
    with app.read(execution.tenant) as connection:
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


def _views(connection: Connection, rows: Iterable[Figures], asked: GetBacklog) -> list[Backlog]:
    rows = list(rows)
    programs = [Identity(row.program_id, row.tenant) for row in rows if row.program_id and row.tenant]
    names = figures.names(connection, programs) if programs else {}
    held = figures.holders(connection, programs, asked.lane) if programs else {}
    keys = [_keys(row) | _held(row, held) for row in rows]
    paused = figures.paused(connection, set().union(*keys))
    return [
        Backlog.model_validate(
            {
                **_numbers(row),
                "name": names.get(Identity(row.program_id, row.tenant or "")) if row.program_id else None,
                "held_by": [
                    Holder(scope=scope_of(key), paused=key in paused)
                    for key in sorted(of_it)
                    if key in paused or key in _held(row, held)
                ],
            }
        )
        for row, of_it in zip(rows, keys, strict=True)
    ]


def _numbers(row: Figures) -> dict[str, Any]:
    return vars(row) | {"expected_seconds": row.expected_seconds}


def _held(row: Figures, held: dict[Identity, set[str]]) -> set[str]:
    """The gates that hold something of a program."""
    return held.get(Identity(row.program_id, row.tenant), set()) if row.program_id and row.tenant else set()


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

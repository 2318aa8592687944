"""Claims what is to run alone in its process: the last attempt, after earlier ones that ended with their worker.

A choice finds it, and leaves it for a moment to the process that has found it (`store.executions.choosing`).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from sqlalchemy import Connection, case, false, or_, select, true, update

from store.database.batch import encode, execute, records
from store.database.identity import Identity
from store.executions.claims import Claim, Lease, claim_of
from store.executions.rows import Request
from store.executions.statements import PENDING, READY_BACKEND, claimed_columns, claimed_values
from store.executions.transitions import explain
from store.executions.waiting import wait_no_more
from store.gates.known import CHANGED_AT
from store.queues.keys import KEY, key_of
from store.tables import NOW, executions, programs


def claim_alone(connection: Connection, lease: Lease, requests: Sequence[Request]) -> list[Claim]:
    """Claim executions that wait in their queues, while nothing else runs in the process.

    Skips locked rows, so it cannot deadlock: who has locked one claims or ends it.

    Returns:
        The result for each request, in order. Only a `Claimed` may be run.
    """
    asked = encode(request.identity._asdict() for request in requests)
    by = {"worker": lease.worker, "lease_seconds": lease.seconds}
    found = execute(connection, _claiming(connection.dialect.name), asked | by).all()
    claims = {Identity(row.id, row.tenant): claim_of(row) for row in found}
    claims |= explain(connection, [request for request in requests if request.identity not in claims])
    wait_no_more(connection, [key_of(row) for row in found])
    return [claims[request.identity] for request in requests]


@lru_cache(maxsize=2)
def _claiming(dialect: str) -> Any:
    """Parameters: `records` of identities, `worker`, `lease_seconds`."""
    c, p, r = executions.c, programs.c, records(dialect, {name: executions.c[name].type for name in Identity._fields})
    may_run = PENDING & c.run_at.is_not(None) & or_(c.not_before.is_(None), c.not_before <= NOW)
    free = (
        select(c.id, c.tenant)
        .join_from(r, executions, (c.id == r.c.id) & (c.tenant == r.c.tenant))
        # An expression, so that each row is found by its id, as in `statements.finish`.
        .where(case((may_run, true()), else_=false()))
        .with_for_update(of=executions, skip_locked=True)
        .cte("free")
    )

    def of_program(value: Any) -> Any:
        # Apart from the search, so that what a program that is gone has left is claimed, and ended.
        return select(value).where(p.id == c.program_id, p.tenant == c.tenant).correlate(executions).scalar_subquery()

    columns = claimed_columns()
    queue = [c[name] for name in KEY if name not in {column.name for column in columns}]
    return (
        update(executions)
        .where(c.id == free.c.id, c.tenant == free.c.tenant)
        .values(**claimed_values(of_program(READY_BACKEND), of_program(p.policy), of_program(p.callback)))
        .returning(*columns, *queue, CHANGED_AT.label("gates_at"))
    )

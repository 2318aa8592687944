"""A choice in its simplest form, with the gates: some queue that may run something, without turns."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy import Connection, and_, insert, null, select, update

from dspex import Configuration, ExecutionOptions, uuid7
from store import executions, gates, programs, signatures
from store.column_types import database_now
from store.database.identity import Identity
from store.executions import Request
from store.gates import KnownGates, Subject
from store.tables import NOW, queues
from store.tables import executions as executions_table
from tests.contract.store.rows import SIGNATURE

_E, _Q = executions_table.c, queues.c


def program_of(connection: Connection, lm: str | None = None, tenant: str = "default", **configuration: Any) -> UUID:
    """A program that is ready, and calls this LM."""
    named = {} if lm is None else {"lm": {"model": lm}}
    made = Configuration.model_validate(named | configuration)
    signature = signatures.create(connection, uuid7(), SIGNATURE, activate=True, tenant=tenant).id
    program = programs.create(
        connection,
        uuid7(),
        name="answerer",
        signature_id=signature,
        adapter_type="mock",
        configuration=made,
        tenant=tenant,
    )
    begun = programs.begin_initialize(connection, program.id, tenant=tenant)
    assert programs.end_initialize(connection, begun, f"backend-{program.id}") is not None
    return program.id


def waits(connection: Connection, program_id: UUID, number: int = 1, *, tenant: str = "default", lane: int = 1) -> None:
    """So many executions of a program wait, and their queue is ready."""
    for _ in range(number):
        asked = Request(uuid7(), program_id, {"question": "?"}, ExecutionOptions(), "/tests", tenant=tenant)
        executions.create(connection, asked)
    mine = executions_table.update().where(_E.program_id == program_id, _E.run_at.is_(None))
    connection.execute(mine.values(run_at=database_now(), lane=lane))
    row = {"tenant": tenant, "program_id": program_id, "lane": lane, "holder": "", "inserted_at": NOW}
    connection.execute(insert(queues).values(row))


def holders(connection: Connection) -> list[str | None]:
    return list(connection.execute(select(_Q.holder).order_by(_Q.holder)).scalars())


def choose(connection: Connection, known: KnownGates, places: int = 64) -> list[tuple[Identity, int]]:
    """Take up to so many executions that may run, each with its lock_version."""
    known.refresh(connection)
    rooms = {"": places} | (gates.with_room(connection, known, places) if known else {})
    found = [] if known.stopped else connection.execute(select(queues).where(_Q.holder.in_(rooms))).all()
    wanted = [
        (Subject(row.tenant, row.program_id, row.lane, row.group_key), min(places, rooms[row.holder]))
        for row in found
        if row.lane not in known.lanes_paused
    ]
    choice = gates.Choice(connection, known)
    numbers = choice.admit(wanted) if known and wanted else [number for _, number in wanted]
    taken, emptied = list[tuple[Subject, Identity, int]](), False
    for (subject, _), number in zip(wanted, numbers, strict=True):
        most = min(number, places - len(taken))
        mine = select(_E.id, _E.tenant).where(
            _E.program_id == subject.program_id,
            _E.tenant == subject.tenant,
            _E.lane == subject.lane,
            _E.status == "pending",
            _E.run_at <= database_now(),
        )
        picked = connection.execute(mine.limit(most).with_for_update(skip_locked=True)).all() if most else []
        if len(picked) < most and connection.execute(mine.limit(1)).one_or_none() is None:
            empty = and_(*(_Q[name] == value for name, value in subject.queue.items()))
            connection.execute(update(queues).where(empty).values(holder=None))
            emptied = True
        for row in picked:
            claimed = update(executions_table).where(_E.id == row.id, _E.tenant == row.tenant)
            claimed = claimed.values(
                status="running",
                attempt=_E.attempt + 1,
                lock_version=_E.lock_version + 1,
                worker="alice",
                lease_expires_at=database_now(60),
                due_at=null(),
                started_at=NOW,
            )
            version = connection.execute(claimed.returning(_E.lock_version)).scalar_one()
            taken.append((subject, Identity(row.id, row.tenant), version))
    if known and wanted:
        choice.taken(taken)
    if emptied and not taken:
        return choose(connection, known, places)
    return [(identity, version) for _, identity, version in taken]


def ends(
    connection: Connection,
    of: Identity,
    version: int,
    known: KnownGates | None = None,
    *,
    outcome: str = "ok",
    tokens: int | None = None,
) -> None:
    """It has ended, and its slots are given back, unless `known` is None."""
    done = update(executions_table).where(_E.id == of.id, _E.tenant == of.tenant, _E.lock_version == version)
    connection.execute(done.values(status="completed", lock_version=version + 1))
    if known is not None:
        known.freed |= gates.settle(connection, [gates.Used(of, version, outcome, 1, tokens)])


def running(connection: Connection) -> int:
    found = select(_E.id).where(_E.status == "running")
    return len(connection.execute(found).all())

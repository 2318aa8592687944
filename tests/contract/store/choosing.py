"""Executions that wait for a choice with gates, are chosen, and end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, select, update

from dspex import Configuration, ExecutionOptions, uuid7
from dspex.contract.options import Lane
from store import executions, gates, programs, signatures
from store.database.identity import Identity
from store.executions import Claimed, Request, choosing
from store.gates import KnownGates
from store.queues.turns import Turns
from store.tables import executions as executions_table
from store.tables import queues
from tests.contract.store.rows import ALICE, SIGNATURE

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


def waits(
    connection: Connection,
    program_id: UUID,
    number: int = 1,
    *,
    tenant: str = "default",
    lane: Lane | None = None,
    metadata: Mapping[str, str] | None = None,
) -> list[Identity]:
    """So many executions of a program wait."""
    options = ExecutionOptions(lane=lane)
    asked = [Request(uuid7(), program_id, {"question": "?"}, options, "/tests", tenant=tenant) for _ in range(number)]
    asked = [replace(one, metadata=metadata or {}) for one in asked]
    executions.claim(connection, ALICE, asked, now=[False] * number)
    return [one.identity for one in asked]


def holders(connection: Connection) -> list[str | None]:
    found = connection.execute(select(_Q.holder)).scalars()
    return sorted(found, key=lambda holder: holder or "")


def choose(connection: Connection, known: KnownGates, places: int = 64) -> list[tuple[Identity, int]]:
    """Take up to so many executions that may run, each with its lock_version. Looks for queues anew."""
    known.refresh(connection)
    chosen = choosing.choose(connection, ALICE, places, Turns(), alone_at=3, known=known).chosen
    return [
        (Identity(one.claim.id, one.request.tenant), one.claim.lock_version)
        for one in chosen
        if isinstance(one.claim, Claimed)
    ]


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

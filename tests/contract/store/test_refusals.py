"""A refused action costs its neighbours nothing: they are committed in the same transaction."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from uuid import UUID

import pytest
from sqlalchemy import Connection, Engine, event

from deploy.processes import wait_until
from dspex import Configuration, ExecutionStatus, Usage, uuid7
from dspex.errors import IllegalTransition, NotFound
from store import executions, programs, signatures
from store.executions import Finish, Lease
from tests.contract.store.rows import (
    SIGNATURE,
    claim_now,
    request,
)
from workers.persistence.group_commit import Writer
from workers.persistence.operations import Writes

TENANTS = ("acme", "zebra")


def ready_program(connection: Connection, tenant: str) -> UUID:
    signature_id = signatures.create(connection, uuid7(), SIGNATURE, activate=True, tenant=tenant).id
    program_id = programs.create(
        connection,
        uuid7(),
        name="answerer",
        signature_id=signature_id,
        adapter_type="mock",
        configuration=Configuration(),
        tenant=tenant,
    ).id
    begun = programs.begin_initialize(connection, program_id, tenant=tenant)
    assert programs.end_initialize(connection, begun, "backend-1") is not None
    return program_id


class Held:
    """Holds a writer, so that what comes meanwhile is one batch."""

    def __init__(self) -> None:
        self.entered, self.open = threading.Event(), threading.Event()

    def __call__(self, _connection: Connection, items: Sequence[None]) -> Sequence[None]:
        self.entered.set()
        assert self.open.wait(30)
        return items


def claimed(engine: Engine, tenant: str, number: int) -> list[Finish]:
    """Executions that run, as they are to end."""
    with engine.begin() as connection:
        program_id = ready_program(connection, tenant)
        asked = [replace(request(program_id), tenant=tenant) for _ in range(number)]
        claims = claim_now(connection, Lease("worker", 60), asked)
    return [
        Finish(claim.id, program_id, claim.lock_version, 1.0, Usage(), {"answer": "a"}, tenant=tenant)
        for claim in claims
        if isinstance(claim, executions.Claimed)
    ]


def test_refused_actions_cost_nothing(engine: Engine) -> None:
    writes, writer = Writes(Lease("worker", 60), 0), Writer(engine)
    ended = {tenant: claimed(engine, tenant, 1) for tenant in TENANTS}
    ends = {tenant: claimed(engine, tenant, 10) for tenant in TENANTS}
    cancelled = {tenant: claimed(engine, tenant, 3) for tenant in TENANTS}
    with engine.begin() as connection:
        executions.finish(connection, 0, [ended[tenant][0] for tenant in TENANTS])

    def cancel(execution_id: UUID, tenant: str) -> object:
        def act(connection: Connection) -> object:
            return executions.cancel(connection, execution_id, by="ann", tenant=tenant)

        return writer.call(writes.each, act)

    held = Held()
    commits: list[int] = []
    writer.start()
    with ThreadPoolExecutor(100) as pool:
        gate = pool.submit(writer.call, held, None)
        assert held.entered.wait(30)
        made = [pool.submit(writer.call, writes.finish, end) for tenant in TENANTS for end in ends[tenant]]
        marked = [pool.submit(cancel, end.id, tenant) for tenant in TENANTS for end in cancelled[tenant]]
        late = [pool.submit(cancel, ended[tenant][0].id, tenant) for tenant in TENANTS]
        strange = [pool.submit(cancel, ended[tenant][0].id, "nobody") for tenant in TENANTS]
        unknown = [pool.submit(cancel, uuid7(), tenant) for tenant in TENANTS]
        assert wait_until(lambda: len(writer._waiting) == 32, 30)
        event.listen(engine, "commit", lambda _: commits.append(1))
        held.open.set()
        gate.result(30)
        assert all(future.result(30).held for future in made)
        assert [type(future.exception(30)) for future in late] == [IllegalTransition] * 2
        assert [type(future.exception(30)) for future in strange + unknown] == [NotFound] * 4
        assert [future.exception(30) for future in marked] == [None] * 6
    writer.close()
    assert len(commits) == 2  # of the one that held it, and of all the others
    with engine.connect() as connection:
        for tenant in TENANTS:
            rows = executions.get(connection, [end.id for end in ends[tenant]], tenant=tenant)
            assert [row.status for row in rows] == [ExecutionStatus.COMPLETED] * 10
            running = executions.get(connection, [end.id for end in cancelled[tenant]], tenant=tenant)
            assert [row.cancel_requested for row in running] == [True] * 3


def test_nothing_is_left_of_what_a_refused_action_wrote(engine: Engine) -> None:
    writes, writer = Writes(Lease("worker", 60), 0), Writer(engine)
    [end] = claimed(engine, "acme", 1)

    def cancel_and_refuse(connection: Connection) -> None:
        executions.cancel(connection, end.id, by="ann", tenant="acme")
        raise NotFound("what comes after it")

    writer.start()
    with pytest.raises(NotFound):
        writer.call(writes.each, cancel_and_refuse)
    writer.close()
    with engine.connect() as connection:
        [row] = executions.get(connection, [end.id], tenant="acme")
    assert not row.cancel_requested

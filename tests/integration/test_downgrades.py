"""Each step back, with rows of everything that it changes: what changes is written out, and nothing else does."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine, inspect, text

import migrations
from dspex import Configuration, ErrorDetail, ExecutionOptions, ExecutionStatus, Signature, Usage, uuid7
from dspex.contract.callback import Callback
from dspex.contract.retry_policy import ExecutionPolicy
from store import counters, event_outbox, executions, programs, signatures, webhooks
from store.database.engine import make_engine
from store.database.identity import Identity
from store.executions import (
    Carried,
    Claimed,
    Finish,
    Lease,
    Request,
    Retry,
    Running,
    choosing,
)
from store.queues.turns import Turns

Rows = dict[str, dict[tuple[str, ...], dict[str, Any]]]
Change = tuple[str, str, Any, Any]
"""The execution or program, the column, what it was and what it is."""

RENAMED = {"callbacks": "event_outbox"}
"""Before 0010, and since."""

ERROR = ErrorDetail(code="auth", message="no")
CANCELLED = {"code": "cancelled", "message": "it was cancelled", "problems": []}


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    engine = make_engine(database_url, pool_size=3)
    migrations.upgrade(engine)
    yield engine
    engine.dispose()


@dataclass(frozen=True)
class Lived:
    """Executions by what became of them; `busy` has run all of them but `early`, which was cancelled and never ran."""

    busy: UUID
    idle: UUID
    completed: UUID
    failed: UUID
    stopped: UUID
    early: UUID
    running: UUID
    scheduled: UUID
    waiting: UUID
    left: UUID


def program(engine: Engine, tenant: str) -> UUID:
    with engine.begin() as connection:
        signature = signatures.create(
            connection, uuid7(), Signature.parse("question -> answer"), activate=True, tenant=tenant
        )
        made = programs.create(
            connection,
            uuid7(),
            name="p",
            signature_id=signature.id,
            adapter_type="mock",
            configuration=Configuration(),
            tenant=tenant,
        )
        begun = programs.begin_initialize(connection, made.id, tenant=tenant)
        assert programs.end_initialize(connection, begun, "backend") is not None
    return made.id


def live(engine: Engine, tenant: str) -> Lived:
    """An execution of each kind, for two programs of a tenant."""
    busy, idle = program(engine, tenant), program(engine, tenant)
    hook = Callback(url="https://receiver.example/", secret="A_WEBHOOK_SECRET")

    def ask(program_id: UUID = busy, **more: Any) -> Request:
        return replace(
            Request(uuid7(), program_id, {"question": "why"}, ExecutionOptions(), "/tests", tenant=tenant), **more
        )

    ran = [ask(callback=hook), ask(), ask(), ask(), ask(), ask()]
    later = ExecutionOptions.model_validate({"not_before": "2100-01-01T00:00:00Z"})
    scheduled, early = ask(options=later), ask(idle)
    with engine.begin() as connection:
        told = executions.claim(connection, Lease("w", 600), [*ran, scheduled, early], now=[True] * 6 + [False] * 2)
        claims = [claim for claim in told if isinstance(claim, Claimed)]
        done, bad, stop, _, retried, left = claims
        hows: list[tuple[Claimed, dict[str, Any]]] = [
            (done, {"outputs": {"answer": "b"}}),
            (bad, {"error": ERROR}),
            (stop, {"cancelled": True}),
        ]
        ends = [Finish(c.id, busy, c.lock_version, 5.0, Usage(input_tokens=3), tenant=tenant, **how) for c, how in hows]
        assert executions.finish(connection, 1, ends) == [True, True, True]
        again = Retry(retried.id, retried.lock_version, 3600.0, 1, ERROR, Usage(), Carried(waits=1), tenant)
        assert executions.retry(connection, [again]) == [True]
        executions.cancel(connection, early.id, by="ann", tenant=tenant)
        # As a worker from before 0004 leaves what it gives up: due by its lease.
        assert executions.release(connection, Lease("w", 600), [Identity(left.id, tenant)]) == 1
        connection.execute(
            text("UPDATE executions SET lease_expires_at = run_at, run_at = NULL, due_at = NULL WHERE id = :id"),
            {"id": left.id if engine.dialect.name == "postgresql" else left.id.hex},
        )
        webhooks.register(connection, uuid7(), hook, tenant=tenant)
    return Lived(busy, idle, done.id, bad.id, stop.id, early.id, claims[3].id, scheduled.id, retried.id, left.id)


def content(engine: Engine) -> Rows:
    """Every row, by its key, in the columns that there are."""
    rows: Rows = {}
    with engine.connect() as connection:
        found = inspect(connection)
        for table in found.get_table_names():
            if table == "alembic_version":
                continue
            key = found.get_pk_constraint(table)["constrained_columns"]
            rows[RENAMED.get(table, table)] = {
                tuple(plain(row[name]) for name in key if name != "tenant"): dict(row)
                for row in connection.exec_driver_sql(f"SELECT * FROM {table}").mappings()
            }
    return rows


def plain(value: Any) -> str:
    return str(value).replace("-", "")


def step(engine: Engine, revision: str) -> set[Change]:
    """Go back to a revision. Returns what has changed of rows and columns that it knows; none of its rows is lost."""
    before = content(engine)
    migrations.downgrade(engine, revision)
    after = content(engine)
    changes: set[Change] = set()
    for table, rows in after.items():
        assert rows.keys() == before[table].keys()
        for key, row in rows.items():
            for column, value in row.items():
                was = before[table][key][column]
                if was != value:
                    changes.add((key[0], column, str(was), str(value)))
    return changes


def forget(engine: Engine, tenant: str) -> None:
    with engine.begin() as connection:
        for table in ("executions", "callbacks", "program_counters", "program_durations", "programs", "signatures"):
            if inspect(connection).has_table(table):
                connection.exec_driver_sql(f"DELETE FROM {table} WHERE tenant = '{tenant}'")


def test_every_step_changes_what_it_says_and_nothing_else(engine: Engine) -> None:
    lived = [live(engine, "default"), live(engine, "acme")]
    mine = lived[0]
    waits = [id_ for one in lived for id_ in (one.scheduled, one.waiting)]
    # What waits is due for a relay again when it may run.
    before = content(engine)["executions"]
    when = [(plain(id_), *(str(before[plain(id_),][name]) for name in ("due_at", "run_at"))) for id_ in waits]
    assert step(engine, "0014") == {(id_, "due_at", never, run_at) for id_, never, run_at in when}
    assert step(engine, "0005") == set()
    assert step(engine, "0004") == set()
    # What waits is due by its lease, save what is already; what runs keeps its lease, what has ended has none.
    due = {key: row["due_at"] for (key,), row in content(engine)["executions"].items()}
    assert step(engine, "0003") == {(plain(id_), "lease_expires_at", "None", str(due[plain(id_)])) for id_ in waits}
    assert step(engine, "0002") == set()
    # Executions that were cancelled become failed ones, and so do their counts.
    forget(engine, "acme")
    changes = step(engine, "0001")
    rows = content(engine)
    assert {(key, column) for key, column, *_ in changes} == {
        *((plain(mine.stopped), name) for name in ("status", "error")),
        *((plain(mine.early), name) for name in ("status", "error")),
        (plain(mine.busy), "failed"),
        (plain(mine.idle), "failed"),
        (plain(mine.idle), "last_executed_at"),
    }
    status = {key: row["status"] for (key,), row in rows["executions"].items()}
    assert [status[plain(id_)] for id_ in (mine.completed, mine.failed, mine.stopped, mine.early, mine.running)] == [
        *("completed", "failed", "failed", "failed", "running")
    ]
    sums = [
        [
            (row["completed"], row["failed"])
            for (id_, _), row in rows["program_counters"].items()
            if id_ == plain(program_id)
        ]
        for program_id in (mine.busy, mine.idle)
    ]
    assert sums == [[(1, 2)], [(0, 1)]]


def test_what_went_back_and_forth_is_served(engine: Engine) -> None:
    """What waits is adopted when it is due, what is running is rescued, and what was cancelled has an error."""
    lived = live(engine, "default")
    migrations.downgrade(engine, "0001")
    migrations.upgrade(engine)
    with engine.begin() as connection:
        assert executions.adopt(connection, 10) == 1
        [one] = choosing.choose(connection, Lease("w", 60), 10, Turns(), alone_at=3).chosen
        assert one.request.id == lived.left
        ids = [lived.scheduled, lived.waiting, lived.running]
        rows = {row.id: row for row in executions.get(connection, [*ids, lived.stopped, lived.early])}
        assert [rows[id_].status for id_ in ids] == ["pending", "pending", "running"]
        for id_ in (lived.stopped, lived.early):
            error = rows[id_].error
            assert error is not None
            assert (rows[id_].status, error.model_dump(mode="json")) == (ExecutionStatus.FAILED, CANCELLED)
        totals = [counters.totals(connection, program_id) for program_id in (lived.busy, lived.idle)]
        assert [(t.completed, t.failed, t.cancelled) for t in totals] == [(1, 2, 0), (0, 1, 0)]
        assert event_outbox.pending(connection, [lived.completed, lived.stopped]) == set()


def test_what_asked_for_a_trace_is_as_if_it_had_not(engine: Engine) -> None:
    """Workers of 0011 cannot read that it did; and the request stays the same."""
    program_id = program(engine, "acme")
    asked = Request(uuid7(), program_id, {"question": "why"}, ExecutionOptions(seed=7, trace=True), "/t", tenant="acme")
    with engine.begin() as connection:
        policy = ExecutionPolicy(max_attempts=2, trace_rate=0.5)
        given: dict[str, Any] = {"configuration": Configuration(), "backend_id": "backend", "tenant": "acme"}
        programs.update(connection, program_id, policy=policy, **given)
        executions.claim(connection, Lease("w", -1.0), [asked], now=[True])
    migrations.downgrade(engine, "0011")
    with engine.connect() as connection:
        tables = text("SELECT options, policy FROM executions"), text("SELECT policy FROM programs")
        found = [json.loads(v) if isinstance(v, str) else v for t in tables for v in connection.execute(t).one()]
    assert found == [{"seed": 7}, {"max_attempts": 2}, {"max_attempts": 2}]
    migrations.upgrade(engine)
    with engine.begin() as connection:
        again = replace(asked, options=ExecutionOptions(seed=7))
        assert executions.claim(connection, Lease("w", 60), [again], now=[True]) == [Running(asked.id)]

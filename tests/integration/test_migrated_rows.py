"""Rows that an earlier version wrote are kept, filled in, and given back by the way down."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from alembic.util import CommandError
from sqlalchemy import Engine, text

import migrations
from dspex import ExecutionOptions, ExecutionStatus, Signature, Usage, uuid7
from store import executions, programs, rejections, signatures, statistics
from tests.integration import worker_before_tenants
from tests.integration.schema import differences


def test_rows_of_0001_are_served_and_filled_in(engine: Engine) -> None:
    migrations.upgrade(engine, "0001")
    program_id = worker_before_tenants.fill(engine)
    migrations.upgrade(engine)
    with engine.connect() as connection:
        program = programs.get(connection, program_id)
        assert (program.tenant, program.execution_count, program.signature.module) == ("default", 6, "m")
        found = executions.page(connection).items
        assert len(found) == 12
        assert {(item.tenant, item.timeline, item.cancel_requested) for item in found} == {("default", (), False)}
        assert len(rejections.page(connection).items) == 1
        assert signatures.find(connection, "m", "1.0.0").id == program.signature_id
        assert len(executions.page(connection, error_code="timeout").items) == 3
        whole = statistics.all_time(connection, program_id)
        since = datetime(2000, 1, 1, tzinfo=UTC)
        window = statistics.window(connection, program_id, since, datetime(2100, 1, 1, tzinfo=UTC))
    assert (whole.successful, whole.failed, whole.input_tokens) == (3, 3, 42)
    assert (window.successful, window.failed, window.input_tokens, window.output_tokens) == (3, 3, 42, 18)
    assert window.cost == pytest.approx(3.0)
    assert window.p50_duration_ms == 96.0
    assert whole.p50_duration_ms == pytest.approx(64.0, rel=0.09)
    assert whole.p95_duration_ms == pytest.approx(1024.0, rel=0.09)


def test_down_from_tenants_keeps_what_0001_knows(engine: Engine) -> None:
    migrations.upgrade(engine, "0001")
    program_id = worker_before_tenants.fill(engine)
    before = content_0001(engine)
    migrations.upgrade(engine)
    with engine.begin() as connection:
        pending = executions.page(connection, status=ExecutionStatus.PENDING).items[0]
        executions.cancel(connection, pending.id, by="ann")
    migrations.downgrade(engine, "0001")
    after = content_0001(engine)
    with engine.begin() as connection:
        run = connection.exec_driver_sql
        [row] = run(f"SELECT status, error FROM executions WHERE id = '{id_text(engine, pending.id)}'")
        assert row.status == "failed"
        assert "it was cancelled" in str(row.error)
        sums = run("SELECT sum(completed), sum(failed) FROM program_counters").one()
        assert tuple(map(int, sums)) == (3, 4)
        run(f"DELETE FROM executions WHERE id = '{id_text(engine, pending.id)}'")
    for table in ("signatures", "programs", "rejected_messages"):
        assert after[table] == before[table]
    kept = {row for row in before["executions"] if str(pending.id.hex) not in str(row[0]).replace("-", "")}
    assert kept <= after["executions"]
    migrations.upgrade(engine)
    with engine.connect() as connection:
        assert programs.get(connection, program_id).execution_count == 7


def id_text(engine: Engine, id_: UUID) -> str:
    return str(id_) if engine.dialect.name == "postgresql" else id_.hex


def content_0001(engine: Engine) -> dict[str, set[tuple[Any, ...]]]:
    """The rows, in the columns of 0001, as text."""
    tables = ("signatures", "programs", "executions", "rejected_messages")
    with engine.connect() as connection:
        return {
            table: {tuple(map(str, row)) for row in connection.exec_driver_sql(f"SELECT * FROM {table}")}
            for table in tables
        }


def test_down_from_tenants_is_refused_where_there_are_others(engine: Engine) -> None:
    migrations.upgrade(engine)
    with engine.begin() as connection:
        signature = Signature.parse("question -> answer")
        signatures.create(connection, uuid7(), signature, activate=True, tenant="acme")
    with pytest.raises(CommandError, match="signatures has rows of other tenants"):
        migrations.downgrade(engine, "0001")
    assert migrations.current(engine) in ("0002", migrations.head())
    migrations.upgrade(engine)
    assert differences(engine) == []


def test_what_older_workers_counted_is_looked_up_in_the_rows(engine: Engine) -> None:
    """Of how many tokens and cost are known: once, whatever is run again, and beside workers of this version."""
    migrations.upgrade(engine, "0001")
    program_id = worker_before_tenants.fill(engine)
    migrations.upgrade(engine)
    with engine.begin() as connection:  # as before 0009
        connection.execute(text("UPDATE program_counters SET tokens_known = 0, cost_known = 0"))
    since = datetime(2000, 1, 1, tzinfo=UTC)

    def known() -> tuple[tuple[int, int, int], tuple[int, int, int]]:
        with engine.connect() as connection:
            whole = statistics.all_time(connection, program_id)
            window = statistics.window(connection, program_id, since, datetime(2100, 1, 1, tzinfo=UTC))
        return (
            (whole.total, whole.tokens_known, whole.cost_known),
            (window.total, window.tokens_known, window.cost_known),
        )

    assert known() == ((6, 0, 0), (6, 6, 6))
    with engine.begin() as connection:
        asked = [executions.Request(uuid7(), program_id, {"question": "é"}, ExecutionOptions(), "/t") for _ in "ab"]
        executions.claim(connection, executions.Lease("w", 30), asked, now=[True, True])
        ends = [
            executions.Finish(one.id, program_id, 1, 1.5, usage, {"answer": "b"})
            for one, usage in zip(asked, (Usage(calls=1), Usage(calls=1, cost=0.5)), strict=True)
        ]
        assert executions.finish(connection, 3, ends) == [True, True]
    assert known() == ((8, 0, 1), (8, 6, 7))
    for revision in ("0008", "0006", "0005"):
        migrations.downgrade(engine, revision)
        migrations.upgrade(engine)
        assert known() == ((8, 6, 7), (8, 6, 7))


def test_down_from_shared_ids_is_refused(engine: Engine) -> None:
    migrations.upgrade(engine)
    signature_id = uuid7()
    with engine.begin() as connection:
        for tenant in ("default", "acme"):
            signature = Signature.parse("question -> answer")
            signatures.create(connection, signature_id, signature, activate=True, tenant=tenant)
    with pytest.raises(CommandError, match="signatures: two tenants have the same id"):
        migrations.downgrade(engine, "0007")
    # On SQLite all steps are one transaction.
    assert migrations.current(engine) == ("0019" if engine.dialect.name == "sqlite" else "0008")
    with engine.begin() as connection:
        signatures.destroy(connection, signature_id, tenant="acme")
    migrations.downgrade(engine, "0007")
    migrations.upgrade(engine)
    assert differences(engine) == []

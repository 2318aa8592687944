"""The migrations make exactly the tables that the code describes, on both databases, up and down, and one at a time."""

from __future__ import annotations

import logging
import multiprocessing
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import main as alembic
from alembic.runtime.migration import MigrationContext
from alembic.util import CommandError
from sqlalchemy import Engine, create_engine, insert, inspect, select, text
from sqlalchemy.exc import DBAPIError

import migrations
from dspex import Configuration, ExecutionOptions, ExecutionStatus, Signature, Usage, uuid7
from dspex.contract.callback import Callback
from dspex.contract.status import DeliveryStatus
from dspex.errors import Conflict
from store import counters, event_outbox, executions, programs, rejections, signatures, statistics, webhooks
from store.database.engine import make_engine
from store.tables import metadata
from tests.integration import worker_before_tenants
from tests.integration.worker_before import WorkerBefore
from tests.waiting import wait_until

ROOT = Path(__file__).parents[2]

SCHEMA = {
    "sqlite": ("SELECT type, name, tbl_name, sql FROM sqlite_master",),
    "postgresql": (
        """SELECT table_name, rank() OVER (PARTITION BY table_name ORDER BY ordinal_position), column_name, data_type,
                  character_maximum_length, is_nullable, column_default
           FROM information_schema.columns WHERE table_schema = 'public'""",
        "SELECT tablename, indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'",
        """SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid)
           FROM pg_constraint WHERE connamespace = 'public'::regnamespace""",
        "SELECT relname, relkind::text, reloptions::text FROM pg_class WHERE relnamespace = 'public'::regnamespace",
    ),
}
PART = re.compile(r",(?![^(]*\))|(?<=\S) (?=CONSTRAINT)")
"""Columns and constraints are parted by commas outside of parentheses; one that came with its column, by nothing."""

Rows = dict[str, list[tuple[Any, ...]]]


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    engine = make_engine(database_url, pool_size=10)
    yield engine
    engine.dispose()


def differences(engine: Engine) -> list[Any]:
    """What `alembic revision --autogenerate` would write."""
    options = {"compare_type": True, "compare_server_default": True, "target_metadata": metadata}
    with engine.connect() as connection:
        found: list[Any] = compare_metadata(MigrationContext.configure(connection, opts=options), metadata)
    return found


def schema(engine: Engine) -> set[tuple[Any, ...]]:
    """Everything the database knows of its tables: columns, constraints and indexes with their predicates, options."""
    with engine.connect() as connection:
        return {
            tuple(map(normal, row))
            for query in SCHEMA[engine.dialect.name]
            for row in connection.execute(text(query))
            if not any("alembic_version" in str(value) for value in row)
        }


def normal(value: Any) -> Any:
    """SQLite keeps the text: quotes, white space and the place of the constraints depend on how a table came about."""
    if not isinstance(value, str) or not value.startswith("CREATE TABLE"):
        return value
    head, _, body = value.replace('"', "").partition("(")
    parts = [" ".join(part.split()) for part in PART.split(body.rstrip().removesuffix(")"))]
    columns = [part for part in parts if not part.startswith("CONSTRAINT")]
    constraints = sorted(part for part in parts if part.startswith("CONSTRAINT"))
    return "\n".join([head.strip(), *columns, *constraints])


def fill(engine: Engine) -> None:
    """At least one row in every table."""
    signature_id, program_id = uuid7(), uuid7()
    with engine.begin() as connection:
        signatures.create(connection, signature_id, Signature.parse("question -> answer"), activate=True)
        programs.create(
            connection,
            program_id,
            name="a",
            signature_id=signature_id,
            adapter_type="mock",
            configuration=Configuration(),
        )
        callback = Callback(url="https://receiver.example/", secret="A_WEBHOOK_SECRET")
        asked = [
            executions.Request(
                uuid7(),
                program_id,
                {"question": "é"},
                ExecutionOptions(seed=1),
                "/tests",
                idempotency_key=key,
                callback=callback,
            )
            for key in "ab"
        ]
        claimed, _ = executions.claim(connection, executions.Lease("w", 30), asked)
        assert isinstance(claimed, executions.Claimed)
        ended = executions.Finish(claimed.id, program_id, claimed.lock_version, 1.5, Usage(), {"answer": "b"})
        assert executions.finish(connection, 1, [ended]) == [True]
        (place,) = webhooks.places(connection, "", 10)
        (due,) = webhooks.take(connection, {place: 1}, 30)
        webhooks.settle(connection, [webhooks.Settled(due, DeliveryStatus.PENDING, 5, "it failed", "failed")])
        executions.create(connection, executions.Request(uuid7(), program_id, {}, ExecutionOptions(), "/tests"))
        rejections.record(connection, rejections.Rejection("q", "malformed_message", "not JSON", b"\x00{", 2))


def content(engine: Engine) -> Rows:
    with engine.connect() as connection:
        return {
            table.name: [tuple(row) for row in connection.execute(select(table).order_by(*table.primary_key))]
            for table in metadata.sorted_tables
        }


def test_up_makes_what_the_code_describes(engine: Engine) -> None:
    assert migrations.current(engine) is None
    migrations.upgrade(engine)
    assert migrations.current(engine) == migrations.head()
    assert differences(engine) == []


def test_up_makes_the_same_as_the_metadata_to_the_last_index_predicate(engine: Engine) -> None:
    migrations.upgrade(engine)
    migrated = schema(engine)
    migrations.downgrade(engine, "base")
    metadata.create_all(engine)
    assert migrated == schema(engine)
    assert any("ix_executions_running" in str(item) and "WHERE" in str(item).upper() for item in migrated)


def test_down_leaves_nothing_but_the_version_table(engine: Engine) -> None:
    migrations.upgrade(engine)
    fill(engine)
    migrations.downgrade(engine, "base")
    assert migrations.current(engine) is None
    assert inspect(engine).get_table_names() == ["alembic_version"]
    assert schema(engine) == set()


def test_up_down_and_up_again(engine: Engine) -> None:
    migrations.upgrade(engine)
    first = schema(engine)
    migrations.downgrade(engine, "base")
    migrations.upgrade(engine)
    assert schema(engine) == first
    fill(engine)


def test_up_when_already_there_keeps_every_row(engine: Engine) -> None:
    migrations.upgrade(engine)
    fill(engine)
    before = content(engine)
    assert all(before.values())
    migrations.upgrade(engine)
    migrations.upgrade(engine, migrations.head())
    assert content(engine) == before


def test_every_revision_goes_up_and_down_with_rows_in_the_tables(engine: Engine) -> None:
    """From each revision to the next and back, with a row in every table that there is at that time."""
    migrations.upgrade(engine)
    fill(engine)
    rows = content(engine)
    while (revision := migrations.current(engine)) is not None:
        before = schema(engine)
        migrations.downgrade(engine, "-1")
        migrations.upgrade(engine, revision)
        assert schema(engine) == before
        migrations.downgrade(engine, "-1")
    migrations.upgrade(engine)
    restore(engine, rows)
    assert content(engine) == rows


def restore(engine: Engine, rows: Rows) -> None:
    with engine.begin() as connection:
        for table in metadata.sorted_tables:
            names = [column.name for column in table.columns]
            connection.execute(insert(table), [dict(zip(names, row, strict=True)) for row in rows[table.name]])


def test_many_threads_upgrade_at_once(engine: Engine) -> None:
    at_once(8, lambda: migrations.upgrade(engine))
    assert migrations.current(engine) == migrations.head()
    assert differences(engine) == []


def test_any_engine_will_do(database_url: str) -> None:
    """Not only the one of the workers, which begins SQLite's transactions itself."""
    engine = create_engine(database_url)
    at_once(2, lambda: migrations.upgrade(engine))
    fill(engine)
    assert differences(engine) == []
    migrations.downgrade(engine, "base")
    assert inspect(engine).get_table_names() == ["alembic_version"]
    engine.dispose()


def at_once(number: int, action: Callable[[], None]) -> None:
    """Run in threads that begin together; raises what any of them raised."""
    barrier, errors = threading.Barrier(number), list[Exception]()

    def run() -> None:
        try:
            barrier.wait()
            action()
        except Exception as error:  # noqa: BLE001
            errors.append(error)

    threads = [threading.Thread(target=run) for _ in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise ExceptionGroup("in threads", errors)


def upgrade_in_process(url: str, number: int, barrier: Any) -> None:
    engine = make_engine(url)
    barrier.wait()
    for _ in range(number):
        migrations.upgrade(engine)
    engine.dispose()


def test_processes_upgrade_at_once(engine: Engine, database_url: str) -> None:
    spawn = multiprocessing.get_context("spawn")
    barrier = spawn.Barrier(3)
    processes = [spawn.Process(target=upgrade_in_process, args=(database_url, 3, barrier)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert migrations.current(engine) == migrations.head()
    assert differences(engine) == []


def test_a_failed_migration_changes_nothing(engine: Engine) -> None:
    """A table of the last that are made is in the way."""
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE rejected_messages (id INTEGER)"))
    with pytest.raises(DBAPIError):
        migrations.upgrade(engine)
    assert migrations.current(engine) is None
    assert set(inspect(engine).get_table_names()) - {"alembic_version"} == {"rejected_messages"}
    with engine.begin() as connection:
        connection.execute(text("DROP TABLE rejected_messages"))
    migrations.upgrade(engine)
    assert differences(engine) == []


def test_a_migration_gives_up_where_workers_hold_a_table(postgres_database_url: str) -> None:
    """It would make everyone who comes after it wait."""
    engine = make_engine(postgres_database_url)
    migrations.upgrade(engine)
    with engine.begin() as worker:
        worker.execute(text("LOCK TABLE executions IN ROW EXCLUSIVE MODE"))
        with pytest.raises(DBAPIError, match="lock timeout"):
            migrations.downgrade(engine, "base")
    assert migrations.current(engine) == "0008"  # whose own downgrade touches it first
    assert differences(engine) == []
    with engine.connect() as connection:
        assert connection.execute(text("SHOW lock_timeout")).scalar_one() == "1s"
    engine.dispose()


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


def work_goes_on(ended: list[UUID]) -> None:
    """Wait until workers have ended some more executions."""
    wanted = len(ended) + 25
    wait_until(lambda: len(ended) >= wanted, "executions end")


def test_workers_of_the_version_before_go_on(postgres_database_url: str) -> None:
    """While it migrates to 0002 and back, and after it; none of their statements fails, or waits for long."""
    engine = make_engine(postgres_database_url, pool_size=10)
    migrations.upgrade(engine, "0001")
    program_id = worker_before_tenants.fill(engine)
    stop, longest = threading.Event(), [0.0]
    ended: list[UUID] = []
    old = create_engine(postgres_database_url, connect_args={"application_name": "dspex"})

    def work() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            began = time.monotonic()
            with old.begin() as connection:
                execution_id = worker_before_tenants.claim(connection, program_id)
            with old.begin() as connection:
                worker_before_tenants.finish(connection, program_id, execution_id, good=number % 2 == 0)
            longest[0] = max(longest[0], time.monotonic() - began)
            ended.append(execution_id)

    with ThreadPoolExecutor(4) as threads:
        working = [threads.submit(work) for _ in range(4)]
        try:
            work_goes_on(ended)
            migrations.upgrade(engine, "0002")
            work_goes_on(ended)
            with pytest.raises(CommandError, match="workers of an earlier version are connected"):
                migrations.upgrade(engine)
            assert migrations.current(engine) == "0002"
            assert not migrations.serves(engine)
            migrations.downgrade(engine, "0001")
            assert not migrations.serves(engine)
            migrations.upgrade(engine, "0002")
            work_goes_on(ended)
        finally:
            stop.set()
        for worker in working:
            worker.result()
    old.dispose()
    assert longest[0] < 2.0
    migrations.upgrade(engine)
    assert differences(engine) == []
    with engine.connect() as connection:
        rows = executions.count(connection, program_id).by_status
        totals = counters.totals(connection, program_id)
        assert (totals.completed, totals.failed) == (rows[ExecutionStatus.COMPLETED], rows[ExecutionStatus.FAILED])
        assert sum(counters.durations(connection, program_id).values()) == totals.executions
        assert totals.executions > 20
    engine.dispose()


@pytest.mark.parametrize(("before", "after"), [("0003", "0004"), ("0004", "0005"), ("0005", "0006"), ("0006", "0007")])
def test_workers_of_the_revision_before_go_on(postgres_database_url: str, before: str, after: str) -> None:
    """While it goes up, down and up again, and jobs end all the time."""
    engine = make_engine(postgres_database_url)
    migrations.upgrade(engine, "0001")
    program_id = worker_before_tenants.fill(engine)
    migrations.upgrade(engine, before)
    worker, stop, longest = WorkerBefore(before), threading.Event(), [0.0]
    ended: list[UUID] = []
    old = create_engine(postgres_database_url, connect_args={"application_name": "dspex/2"})

    def work(good: bool) -> None:
        while not stop.is_set():
            began = time.monotonic()
            with old.begin() as connection:
                execution_id = worker.claim(connection, program_id)
            with old.begin() as connection:
                worker.finish(connection, program_id, execution_id, good=good)
            with old.begin() as connection:
                worker.tell(connection, execution_id)
            longest[0] = max(longest[0], time.monotonic() - began)
            ended.append(execution_id)

    with ThreadPoolExecutor(4) as threads:
        working = [threads.submit(work, number % 2 == 0) for number in range(4)]
        try:
            for migrate, revision in (
                (migrations.upgrade, after),
                (migrations.downgrade, before),
                (migrations.upgrade, after),
            ):
                work_goes_on(ended)
                migrate(engine, revision)
            work_goes_on(ended)
        finally:
            stop.set()
        for one in working:
            one.result()
    old.dispose()
    assert longest[0] < 2.0
    migrations.upgrade(engine)
    assert differences(engine) == []
    with engine.connect() as connection:
        rows = executions.count(connection, program_id).by_status
        totals = counters.totals(connection, program_id)
        assert (totals.completed, totals.failed) == (rows[ExecutionStatus.COMPLETED], rows[ExecutionStatus.FAILED])
        assert totals.executions == len(ended) + 6
        assert event_outbox.due(connection, 0.0, 10) == []
    engine.dispose()


def test_what_older_workers_counted_is_looked_up_in_the_rows(engine: Engine) -> None:
    """Of how many tokens and cost are known: once, whatever is run again, and beside workers of this version."""
    migrations.upgrade(engine, "0001")
    program_id = worker_before_tenants.fill(engine)
    migrations.upgrade(engine, "0008")
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
        executions.claim(connection, executions.Lease("w", 30), asked)
        ends = [
            executions.Finish(one.id, program_id, 1, 1.5, usage, {"answer": "b"})
            for one, usage in zip(asked, (Usage(calls=1), Usage(calls=1, cost=0.5)), strict=True)
        ]
        assert executions.finish(connection, 3, ends) == [True, True]
    assert known() == ((8, 0, 1), (8, 6, 7))
    migrations.upgrade(engine)
    assert known() == ((8, 6, 7), (8, 6, 7))
    for revision in ("0008", "0006", "0005"):
        migrations.downgrade(engine, revision)
        migrations.upgrade(engine)
        assert known() == ((8, 6, 7), (8, 6, 7))


def test_keys_wait_until_workers_of_before_are_gone(postgres_database_url: str) -> None:
    """They name the keys that go. Workers of this version run on what there is until then."""
    engine = make_engine(postgres_database_url)
    migrations.upgrade(engine, "0006")
    with create_engine(postgres_database_url, connect_args={"application_name": "dspex/2"}).connect() as old:
        old.exec_driver_sql("SELECT 1")
        with pytest.raises(CommandError, match=r"workers of an earlier version are connected \(1 sessions\)"):
            migrations.upgrade(engine)
        assert migrations.current(engine) == "0007"
        assert migrations.serves(engine)
        fill(engine)
        old.invalidate()
    migrations.upgrade(engine)
    assert differences(engine) == []
    engine.dispose()


def test_workers_of_this_version_go_on_while_the_keys_change(postgres_database_url: str) -> None:
    """Before, between and after, up and down: none of their statements fails."""
    engine = make_engine(postgres_database_url, pool_size=10)
    migrations.upgrade(engine, "0001")
    program_id = worker_before_tenants.fill(engine)
    migrations.upgrade(engine, "0006")
    stop, ended = threading.Event(), list[UUID]()

    def work(shard: int) -> None:
        lease = executions.Lease(f"worker-{shard}", 30)
        while not stop.is_set():
            asked = executions.Request(uuid7(), program_id, {"question": "é"}, ExecutionOptions(), "/tests")
            with engine.begin() as connection:
                [claimed] = executions.claim(connection, lease, [asked])
            assert isinstance(claimed, executions.Claimed)
            with engine.begin() as connection:
                assert executions.heartbeat(connection, lease, [asked.identity]).extended == 1
                end = executions.Finish(asked.id, program_id, 1, 1.5, Usage(), {"answer": "b"})
                assert executions.finish(connection, shard, [end]) == [True]
            with engine.begin() as connection:
                event_outbox.sent(connection, [event_outbox.OutboxEntry(asked.id, 2)])
            ended.append(asked.id)

    with ThreadPoolExecutor(4) as threads:
        working = [threads.submit(work, shard) for shard in range(4)]
        try:
            for migrate, revision in (
                (migrations.upgrade, "0007"),
                (migrations.upgrade, "0009"),
                (migrations.downgrade, "0006"),
                (migrations.upgrade, "0009"),
            ):
                work_goes_on(ended)
                migrate(engine, revision)
                assert migrations.serves(engine)
            work_goes_on(ended)
        finally:
            stop.set()
        for one in working:
            one.result()
    with engine.connect() as connection:
        totals = counters.totals(connection, program_id)
        assert totals.completed == len(ended) + 3
        assert (totals.tokens_known, totals.cost_known) == (len(ended) + 6, len(ended) + 6)
        assert event_outbox.due(connection, 0.0, 10) == []
    engine.dispose()


@pytest.mark.parametrize("revision", ["0006", "0007"])
def test_until_the_keys_change_the_id_of_another_tenant_is_a_conflict(engine: Engine, revision: str) -> None:
    """And nothing else goes wrong, not even where one has the id of a program that is gone, and was counted."""
    migrations.upgrade(engine, revision)
    fill(engine)
    with engine.begin() as connection:
        [program] = programs.page(connection).items
        [done] = executions.page(connection, status=ExecutionStatus.COMPLETED).items
        signature = signatures.find_or_create(connection, Signature.parse("question -> answer"), tenant="acme")
        values: dict[str, Any] = {"name": "b", "signature_id": signature.id, "adapter_type": "mock", "tenant": "acme"}
        with pytest.raises(Conflict):
            programs.create(connection, program.id, **values, configuration=Configuration())
        connection.execute(text("DELETE FROM programs"))
        created = programs.create(connection, program.id, **values, configuration=Configuration())
        programs.end_initialize(connection, programs.begin_initialize(connection, created.id, tenant="acme"), "backend")
        taken, free = (
            executions.Request(id_, program.id, {}, ExecutionOptions(), "/tests", tenant="acme")
            for id_ in (done.id, uuid7())
        )
        conflict, claimed = executions.claim(connection, executions.Lease("w", 30), [taken, free])
        assert conflict == executions.Conflicting(done.id)
        assert isinstance(claimed, executions.Claimed)
        with pytest.raises(Conflict):
            executions.create(connection, taken)
        end = executions.Finish(free.id, program.id, 1, 1.5, Usage(), {"answer": "b"}, tenant="acme")
        assert executions.finish(connection, 1, [end]) == [True]


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
    assert migrations.current(engine) == ("0009" if engine.dialect.name == "sqlite" else "0008")
    with engine.begin() as connection:
        signatures.destroy(connection, signature_id, tenant="acme")
    migrations.downgrade(engine, "0007")
    migrations.upgrade(engine)
    assert differences(engine) == []


def test_an_index_that_was_broken_off_is_built_again(postgres_database_url: str) -> None:
    """And whatever else the attempt before has done is passed over."""
    engine = make_engine(postgres_database_url)
    migrations.upgrade(engine, "0001")
    worker_before_tenants.fill(engine)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        run = connection.exec_driver_sql
        run("ALTER TABLE signatures ADD COLUMN tenant VARCHAR(64) DEFAULT 'default' NOT NULL")
        run("CREATE INDEX ix_signatures_tenant_digest ON signatures (tenant, digest)")
        run("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'ix_signatures_tenant_digest'::regclass")
    migrations.upgrade(engine)
    assert differences(engine) == []
    with engine.connect() as connection:
        broken = connection.exec_driver_sql("SELECT count(*) FROM pg_index WHERE NOT indisvalid").scalar_one()
    assert broken == 0
    engine.dispose()


NOT_ABOUT_LOCKS = (
    *("prefer-text-field", "prefer-bigint-over-int", "prefer-bigint-over-smallint"),
    *("ban-drop-constraint", "ban-drop-not-null"),  # what old workers rely on has a test of its own
    "require-statement-timeout",  # to build an index takes as long as it takes, and nobody waits for it
)


def test_the_sql_holds_no_table_for_long(
    postgres_database_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As squawk sees it, in the migrations of tables that are in use."""
    script = tmp_path / "migrations.sql"
    alembic(["-c", str(ROOT / "alembic.ini"), "-x", f"url={postgres_database_url}", "upgrade", "0001:head", "--sql"])
    script.write_text(capsys.readouterr().out)
    squawk = Path(sys.executable).with_name("squawk")
    rules = f"--exclude={','.join(NOT_ABOUT_LOCKS)}"
    found = subprocess.run(
        [squawk, "--pg-version=15", "--reporter=gcc", rules, script], capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stdout + found.stderr
    script.write_text(script.read_text().replace(" CONCURRENTLY", ""))
    found = subprocess.run([squawk, "--reporter=gcc", rules, script], capture_output=True, text=True, check=False)
    assert "require-concurrent-index-creation" in found.stdout


def test_it_is_quiet(engine: Engine, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]) -> None:
    caplog.set_level(logging.INFO)
    migrations.upgrade(engine)
    migrations.downgrade(engine, "base")
    assert [record.name for record in caplog.records if record.name.startswith("alembic")] == []
    assert capsys.readouterr().out == ""


def test_on_sqlite_foreign_keys_hold_after_a_migration(tmp_path: Path) -> None:
    engine = make_engine(f"sqlite:///{tmp_path / 'a.db'}")
    migrations.upgrade(engine)
    with engine.connect() as connection:
        assert connection.execute(text("PRAGMA foreign_keys")).scalar_one() == 1
    engine.dispose()


def test_the_alembic_command_line(
    engine: Engine, database_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ini = ["-c", str(ROOT / "alembic.ini")]
    monkeypatch.delenv("DSPEX_DATABASE_URL", raising=False)
    alembic([*ini, "-x", f"url={database_url}", "upgrade", "head"])
    assert migrations.current(engine) == migrations.head()
    monkeypatch.setenv("DSPEX_DATABASE_URL", database_url)
    alembic([*ini, "check"])
    # On SQLite, later ones look at the tables that there are: there is no SQL without them.
    alembic([*ini, "upgrade", "0001" if engine.dialect.name == "sqlite" else "head", "--sql"])
    assert "CREATE TABLE executions" in capsys.readouterr().out
    alembic([*ini, "downgrade", "base"])
    assert migrations.current(engine) is None


def test_the_environment_is_read_for_the_command_line_alone(
    engine: Engine, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DSPEX_DATABASE_URL", database_url)
    with pytest.raises(CommandError, match="no connection"):
        command.upgrade(migrations._config(), "head")
    assert migrations.current(engine) is None


def test_the_command_line_says_how_to_name_a_database(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("DSPEX_DATABASE_URL", raising=False)
    with pytest.raises(SystemExit):
        alembic(["-c", str(ROOT / "alembic.ini"), "upgrade", "head"])
    assert "DSPEX_DATABASE_URL" in "".join(capsys.readouterr())

"""Migrations beside workers, of the version before and of this one: their statements neither fail nor wait for long."""

from __future__ import annotations

import itertools
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import UUID

import pytest
from alembic.config import main as alembic
from alembic.util import CommandError
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.exc import DBAPIError

import migrations
from dspex import ExecutionStatus
from store import counters, event_outbox, executions
from store.counters import Counts
from store.database.engine import make_engine
from tests.integration import worker_before_tenants
from tests.integration.schema import differences
from tests.integration.worker_before import WorkerBefore
from tests.waiting import wait_until

ROOT = Path(__file__).parents[2]

SESSIONS = {"0009": "dspex/3"}
"""What the sessions of a version are called."""


def test_a_migration_gives_up_where_workers_hold_a_table(postgres_database_url: str) -> None:
    """It would make everyone who comes after it wait."""
    engine = make_engine(postgres_database_url)
    migrations.upgrade(engine)
    with engine.begin() as worker:
        worker.execute(text("LOCK TABLE executions IN ROW EXCLUSIVE MODE"))
        with pytest.raises(DBAPIError, match="lock timeout"):
            migrations.downgrade(engine, "base")
    assert migrations.current(engine) == "0015"  # whose own downgrade touches it first
    migrations.upgrade(engine)
    assert differences(engine) == []
    with engine.connect() as connection:
        assert connection.execute(text("SHOW lock_timeout")).scalar_one() == "1s"
    engine.dispose()


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
    totals = counted_at_the_newest(engine, program_id)
    with engine.connect() as connection:
        assert sum(counters.durations(connection, program_id).values()) == totals.executions
        assert totals.executions > 20
    engine.dispose()


def counted_at_the_newest(engine: Engine, program_id: UUID) -> Counts:
    """What the counters say at the newest revision, where they are the rows, and the schema is that of the code."""
    migrations.upgrade(engine)
    assert differences(engine) == []
    with engine.connect() as connection:
        rows = executions.count(connection, program_id).by_status
        totals = counters.totals(connection, program_id)
    assert (totals.completed, totals.failed) == (rows[ExecutionStatus.COMPLETED], rows[ExecutionStatus.FAILED])
    return totals


@pytest.mark.parametrize(
    ("version", "revisions"),
    [
        ("0003", ("0003", "0004", "0003", "0004")),
        ("0004", ("0004", "0005", "0004", "0005")),
        ("0005", ("0005", "0006", "0005", "0006")),
        ("0006", ("0006", "0007", "0006", "0007")),
        ("0009", ("0006", "0007", "0009", "0006", "0009")),  # it ran on all of them
        ("0009", ("0009", "0010", "0011", "0012", "0013", "0014", "0015", "0016", "0017", "0018", "0009", "0018")),
    ],
)
def test_workers_of_the_revision_before_go_on(
    postgres_database_url: str, version: str, revisions: tuple[str, ...]
) -> None:
    """While it goes up, down and up again, and jobs end all the time."""
    engine = make_engine(postgres_database_url)
    migrations.upgrade(engine, "0001")
    program_id = worker_before_tenants.fill(engine)
    migrations.upgrade(engine, revisions[0])
    worker, stop, longest = WorkerBefore(version), threading.Event(), [0.0]
    ended: list[UUID] = []
    old = create_engine(postgres_database_url, connect_args={"application_name": SESSIONS.get(version, "dspex/2")})

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
            for before, revision in itertools.pairwise(revisions):
                work_goes_on(ended)
                (migrations.upgrade if revision > before else migrations.downgrade)(engine, revision)
            work_goes_on(ended)
        finally:
            stop.set()
        for one in working:
            one.result()
    old.dispose()
    assert longest[0] < 2.0
    assert counted_at_the_newest(engine, program_id).executions == len(ended) + 6
    with engine.connect() as connection:
        assert event_outbox.due(connection, 0.0, 10) == []
    engine.dispose()


def test_keys_wait_until_workers_of_before_are_gone(postgres_database_url: str) -> None:
    """They name the keys that go."""
    engine = make_engine(postgres_database_url)
    migrations.upgrade(engine, "0006")
    with create_engine(postgres_database_url, connect_args={"application_name": "dspex/2"}).connect() as old:
        old.exec_driver_sql("SELECT 1")
        with pytest.raises(CommandError, match=r"are connected \(1 sessions\), .*: stop them, then migrate again$"):
            migrations.upgrade(engine)
        assert migrations.current(engine) == "0007"
        assert not migrations.serves(engine)
        old.invalidate()
    migrations.upgrade(engine)
    assert differences(engine) == []
    engine.dispose()


NOT_ABOUT_LOCKS = (
    *("prefer-text-field", "prefer-bigint-over-int", "prefer-bigint-over-smallint"),
    # What old workers rely on has tests of its own.
    *("ban-drop-constraint", "ban-drop-not-null", "ban-drop-table", "renaming-table", "renaming-object"),
    "require-concurrent-partition-detach",  # of a default partition there is none
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

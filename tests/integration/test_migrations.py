"""The migrations make exactly the tables that the code describes, on both databases, up and down, and one at a time."""

from __future__ import annotations

import logging
import multiprocessing
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.config import main as alembic
from alembic.util import CommandError
from sqlalchemy import Engine, create_engine, insert, inspect, text
from sqlalchemy.exc import DBAPIError

import migrations
from store.database.engine import make_engine
from store.tables import metadata
from tests.integration import worker_before_tenants
from tests.integration.schema import Rows, content, differences, fill, schema

ROOT = Path(__file__).parents[2]


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

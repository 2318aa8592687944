"""Alembic runs this for every command: finds the database, locks it, and runs the migrations.

Callers pass a connection (`config.attributes["connection"]`, see `migrations.upgrade`) or a URL (`["url"]`). The
`alembic` command line takes the database from `-x url=...`, or else from the environment variable DSPEX_DATABASE_URL.

One upgrade runs at a time; a second one waits, then finds nothing left to do:

- PostgreSQL: an advisory lock, and a transaction for each migration. A transaction on a second connection holds the
  lock, which also works behind a pooler. A migration that waits longer than `LOCK_TIMEOUT` for a table fails, so that
  workers that queue behind it go on; run it again.
- SQLite: everything in one transaction, which takes the write lock at its beginning.
"""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Collection, Generator
from contextlib import contextmanager
from typing import Any

from alembic import command, context
from alembic.runtime.migration import MigrationContext
from alembic.util import CommandError
from sqlalchemy import Connection, Engine, NullPool, create_engine, inspect, text
from sqlalchemy.exc import TimeoutError as DatabaseTimeout

import migrations
from store.database.sessions import adopt
from store.tables import metadata

LOCK = 0x_D5BE_0001
LOCK_TIMEOUT = "2s"
WAIT_SECONDS = 600.0
POLL_SECONDS = 0.1


def main() -> None:
    if context.is_offline_mode():
        context.configure(url=_url(), target_metadata=metadata, literal_binds=True, transaction_per_migration=True)
        with context.begin_transaction():
            context.run_migrations()
        return
    connection = context.config.attributes.get("connection")
    if connection is not None:
        migrate(connection)
        return
    with create_engine(_url(), poolclass=NullPool, hide_parameters=True).connect() as connection:
        migrate(connection)


def migrate(connection: Connection) -> None:
    if connection.dialect.name == "postgresql":
        try:
            with _lock(connection.engine):
                _set(connection)
                _run(connection)
        finally:
            connection.invalidate()  # close it: with these settings it must not return to a pool
    else:
        _migrate_sqlite(connection)


def _migrate_sqlite(connection: Connection) -> None:
    # To change a table, it is created again, and dropping the old one would delete the rows that refer to it. This
    # setting can only be changed outside of a transaction, and the SQLAlchemy connection would begin one.
    driver: Any = connection.connection.driver_connection
    isolation_level, driver.isolation_level = driver.isolation_level, None
    [foreign_keys] = driver.execute("PRAGMA foreign_keys").fetchone()
    driver.execute("PRAGMA foreign_keys = OFF")
    try:
        with connection.begin():
            if not driver.in_transaction:  # the workers' engine has already begun one
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            _run(connection)
            broken = connection.exec_driver_sql("PRAGMA foreign_key_check").all()
            if broken:
                raise CommandError(f"the migration leaves {len(broken)} rows that refer to nothing: undone")
    finally:
        driver.execute(f"PRAGMA foreign_keys = {foreign_keys}")
        driver.isolation_level = isolation_level


@contextmanager
def _lock(engine: Engine) -> Generator[None]:
    """Hold the lock. Its transaction has no snapshot; CREATE INDEX CONCURRENTLY would wait for one."""
    beside = create_engine(
        engine.url, poolclass=NullPool, hide_parameters=True, connect_args={"prepare_threshold": None}
    )
    deadline = time.monotonic() + WAIT_SECONDS
    with beside.connect() as connection:
        # Polls, because waiting in the database would hold a snapshot.
        while not connection.exec_driver_sql(f"SELECT pg_try_advisory_xact_lock({LOCK})").scalar_one():
            connection.rollback()
            if time.monotonic() > deadline:
                raise DatabaseTimeout(f"another migration has been running for {WAIT_SECONDS:.0f} s")
            time.sleep(POLL_SECONDS)
        connection.exec_driver_sql("SET LOCAL idle_in_transaction_session_timeout = 0")
        yield


def _set(connection: Connection) -> None:
    """Apply the settings to the session, or, behind a pooler, to each transaction."""
    every_tenant = {"dspex.tenant": "*"}  # row-level security
    adopt(connection, {"lock_timeout": LOCK_TIMEOUT, "idle_in_transaction_session_timeout": "0"} | every_tenant)


def _run(connection: Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=metadata,
        render_as_batch=connection.dialect.name == "sqlite",
        compare_type=True,
        compare_server_default=True,
        transaction_per_migration=True,
        on_version_apply=_write_what_it_serves,
    )
    _ask_what_may_be_lost(connection)
    with context.begin_transaction():
        context.run_migrations()


def _write_what_it_serves(ctx: MigrationContext, step: Any, heads: Collection[Any], run_args: Any) -> None:  # noqa: ARG001
    """Write `serves_from` beside the revision, in its transaction; see `migrations`."""
    connection, scripts = ctx.connection, context.script
    if connection is None or ctx.as_sql or not heads:
        return
    columns = {column["name"] for column in inspect(connection).get_columns("alembic_version")}
    if "serves_from" not in columns:
        connection.exec_driver_sql("ALTER TABLE alembic_version ADD COLUMN serves_from VARCHAR(32)")
    (revision,) = heads
    served = getattr(scripts.get_revision(revision).module, "serves_from", revision)
    if isinstance(served, dict):
        served = served[connection.dialect.name]
    connection.execute(text("UPDATE alembic_version SET serves_from = :served"), {"served": served})


def _ask_what_may_be_lost(connection: Connection) -> None:
    """Refuse a downgrade by the `alembic` command line that loses data, unless `-x lose=yes` is given.

    Raises:
        CommandError: data would be lost. The text says which.
    """
    given = context.config.cmd_opts
    if given is None or given.cmd[0] is not command.downgrade or "lose" in context.get_x_argument(as_dictionary=True):
        return
    lost = migrations.losses_of(connection, _absolute(connection, given.revision))
    if connection.dialect.name == "postgresql":  # each migration has a transaction of its own
        connection.rollback()
    if lost:
        raise CommandError(f"this loses {'; '.join(lost)}: give -x lose=yes where that may be")


def _absolute(connection: Connection, revision: str) -> str:
    """The absolute revision for a relative one (`-1`)."""
    names = [*migrations.revisions(), "base"]
    at = MigrationContext.configure(connection).get_current_revision()
    if re.fullmatch(r"-[0-9]+", revision) and at in names:
        return names[min(names.index(at) + int(revision[1:]), len(names) - 1)]
    return revision


def _url() -> str:
    given = context.config.attributes.get("url")
    if given is not None:
        return str(given)
    if context.config.cmd_opts is None:
        raise CommandError("no connection was given: use migrations.upgrade(engine), or the alembic command line")
    logging.basicConfig(format="%(message)s")
    logging.getLogger("alembic").setLevel(logging.INFO)
    url = context.get_x_argument(as_dictionary=True).get("url") or os.environ.get("DSPEX_DATABASE_URL")
    if not url:
        raise CommandError("which database? give -x url=postgresql+psycopg://... or set DSPEX_DATABASE_URL")
    return url


main()

"""The engine: how this process talks to its database."""

from __future__ import annotations

import math
import os
import sqlite3
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

from pydantic_core import from_json
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL, make_url

from store.database import sessions, tenancy
from store.database.failures import without_values

BUSY_TIMEOUT_MS = 30_000

APPLICATION_NAME = "dspex/3"
"""The name of our sessions in PostgreSQL. Workers from before migration 0002 called theirs `dspex`, from before 0007
`dspex/2`."""

_NOTICED: Final = {
    "connect_timeout": 10,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}
"""How soon a server that has gone silent is noticed: libpq's parameters, seconds and (the last) milliseconds.

https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-PARAMKEYWORDS
"""

READ_ONLY: Final = {"read_only": True}
"""Execution options of a connection that only reads: on SQLite it does not wait for the one that writes."""


def make_engine(
    url: str | URL, *, pool_size: int = 5, tenant: str = tenancy.ALL, lease_seconds: float = 30.0
) -> Engine:
    """An engine for `postgresql+psycopg://…` or `sqlite:///file`. It connects when it is first used.

    On PostgreSQL, its sessions see the rows of `tenant` alone: workers, which serve every tenant, see all. A
    transaction can be narrowed to one by `tenancy.scope`.

    Args:
        lease_seconds: within which nothing that a session waits for or holds may last, see `store.database.sessions`.

    SQLite is put into write-ahead logging, synchronous FULL: a commit survives a power cut, readers never wait. A new
    file is made for its owner alone.
    """
    url = make_url(url)
    if url.get_backend_name() == "sqlite":
        engine = create_engine(
            url,
            connect_args={"timeout": BUSY_TIMEOUT_MS / 1000},
            pool_size=pool_size,
            json_deserializer=from_json,
            hide_parameters=True,
        )
        event.listen(engine, "do_connect", _create_private)
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_immediate)
        return engine
    given = url.query.get("options", "")
    options = given if isinstance(given, str) else " ".join(given)
    engine = create_engine(
        url,
        pool_size=pool_size,
        max_overflow=0,
        pool_pre_ping=True,
        json_deserializer=from_json,
        hide_parameters=True,
        # Nothing is prepared until it is known that the session is ours.
        connect_args={"application_name": APPLICATION_NAME, "prepare_threshold": None} | _NOTICED,
    )
    sessions.keep(engine, sessions.settings(tenancy.SETTING, tenancy.checked(tenant), lease_seconds), options)
    event.listen(engine, "handle_error", without_values)
    return engine


PLAN_SECONDS: Final = 1.0


class Plans:
    """Has PostgreSQL keep its plans on one connection, for a second: a table does not grow beyond a plan in that time.

    To plan a statement for one row takes as long as to run it.
    """

    def __init__(self) -> None:
        self._until: float | None = None

    def renew(self, connection: Connection) -> None:
        """Called in each transaction, before its statements."""
        now = time.monotonic()
        if self._until is not None and now < self._until:
            return
        if connection.dialect.name != "postgresql" or sessions.shares_session(connection):
            self._until = math.inf  # no plans are kept
            return
        first = self._until is None
        connection.exec_driver_sql("SET plan_cache_mode = force_generic_plan" if first else "DISCARD PLANS")
        self._until = now + PLAN_SECONDS


def _create_private(_dialect: Any, _record: Any, arguments: Sequence[Any], _named: Any) -> None:
    # What is asked and answered is in it: a new file is for its owner alone. SQLite gives what it makes beside the file
    # (-wal, -shm, -journal) the same permissions: https://www.sqlite.org/tempfiles.html
    with suppress(FileExistsError, FileNotFoundError):  # of a missing folder SQLite says more
        made = os.open(arguments[0], os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
        os.fchmod(made, 0o600)
        os.close(made)


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    # The driver would begin transactions late, and in the wrong mode: SQLAlchemy's begin event does it.
    connection.isolation_level = None
    cursor = connection.cursor()
    _write_ahead(cursor)
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()


def _write_ahead(cursor: sqlite3.Cursor) -> None:
    # Of several connections that change a new file at once, SQLite refuses some and lets none wait.
    deadline = time.monotonic() + BUSY_TIMEOUT_MS / 1000
    while True:
        try:
            cursor.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def _begin_immediate(connection: Any) -> None:
    # A transaction that reads first and writes later could not wait its turn: SQLite would refuse it at once.
    read_only = connection.get_execution_options().get("read_only", False)  # see READ_ONLY
    connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")

"""Makes the SQLAlchemy engine of a process."""

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

APPLICATION_NAME = "dspex/4"
"""The application name of our PostgreSQL sessions. It was `dspex` before migration 0002, `dspex/2` before 0007, and
`dspex/3` before 0010."""

_NOTICED: Final = {
    "connect_timeout": 10,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}
"""How soon a silent server is noticed: libpq's parameters, in seconds and (the last) in milliseconds.


https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-PARAMKEYWORDS
"""

READ_ONLY: Final = {"read_only": True}
"""Execution options of a connection that only reads: on SQLite it does not wait for the writer."""


def make_engine(
    url: str | URL, *, pool_size: int = 5, tenant: str = tenancy.ALL, lease_seconds: float = 30.0
) -> Engine:
    """Make an engine for `postgresql+psycopg://…` or `sqlite:///file`. It connects at its first use.

    On PostgreSQL, its sessions see only the rows of `tenant`. Workers serve every tenant, and so see all;
    `tenancy.scope` limits a transaction to one.

    Args:
        lease_seconds: the lease, within which every wait and every lock of a session must end; see
            `store.database.sessions`.

    SQLite uses write-ahead logging and synchronous FULL: a commit survives a power cut, and readers never wait. Only
    the owner may access a new file.
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
        # No statements are prepared until it is known that no pooler shares the session.
        connect_args={"application_name": APPLICATION_NAME, "prepare_threshold": None} | _NOTICED,
    )
    sessions.keep(engine, sessions.settings(tenancy.SETTING, tenancy.checked(tenant), lease_seconds), options)
    event.listen(engine, "handle_error", without_values)
    return engine


PLAN_SECONDS: Final = 1.0
_KEEP_PLANS: Final = "SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off"


class Plans:
    """Makes PostgreSQL cache its plans on one connection for a second, in which no table outgrows them.

    Planning a statement for one row takes as long as running it. A plan finds rows by an index wherever there is one:
    PostgreSQL expects a hundred rows of a batch, and would read a table of 2,000 executions to end one.
    """

    def __init__(self) -> None:
        self._until: float | None = None

    def renew(self, connection: Connection) -> None:
        """Call this in each transaction, before its statements."""
        now = time.monotonic()
        if self._until is not None and now < self._until:
            return
        if connection.dialect.name != "postgresql" or sessions.shares_session(connection):
            self._until = math.inf  # never: no plans are cached
            return
        first = self._until is None
        connection.exec_driver_sql(_KEEP_PLANS if first else "DISCARD PLANS")
        self._until = now + PLAN_SECONDS


def _create_private(_dialect: Any, _record: Any, arguments: Sequence[Any], _named: Any) -> None:
    # It contains inputs and outputs, so only the owner may access a new file. SQLite gives the files beside it (-wal,
    # -shm, -journal) the same permissions: https://www.sqlite.org/tempfiles.html
    with suppress(FileExistsError, FileNotFoundError):  # SQLite reports a missing folder better
        made = os.open(arguments[0], os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
        os.fchmod(made, 0o600)
        os.close(made)


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    # SQLAlchemy's begin event begins transactions: the driver would do it too late, and in the wrong mode.
    connection.isolation_level = None
    cursor = connection.cursor()
    _write_ahead(cursor)
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()


def _write_ahead(cursor: sqlite3.Cursor) -> None:
    # If several connections set up a new file at the same time, SQLite refuses some instead of waiting.
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
    # A transaction that reads before it writes cannot wait for the write lock: SQLite refuses it at once.
    read_only = connection.get_execution_options().get("read_only", False)  # see READ_ONLY
    connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")

"""Our sessions on PostgreSQL: their settings, and how long each waits.

A session that is the server's own has them from its beginning. Behind a pooler a session is anybody's between two
transactions: there each transaction sets them for itself, with its BEGIN, at no round trip more, and nothing is
prepared. Which of the two it is, is seen by the process that serves: a pooler names another one than the server does.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy import Connection, Engine, event

PREPARE_AFTER: Final = 5
"""psycopg prepares what was run so often."""

CAREFUL_LOCK_MS: Final = 50
"""What waits for a lock after its batch has."""

_POOLED: Final = "dspex_begin"
"""In what is known of a connection: how a transaction begins behind a pooler."""

_OPTION: Final = re.compile(r"(?:-c\s*|--)([\w.]+)\s*=")


def settings(tenant_setting: str, tenant: str, lease_seconds: float) -> dict[str, str]:
    """The settings of a session. What it may wait for, or hold, ends well within a lease.

    A worker that is frozen in a transaction holds locks; its session is ended after a third of a lease, and those that
    wait for it go on. https://www.postgresql.org/docs/current/runtime-config-client.html
    """
    return {
        # psycopg prepares what is run often, and PostgreSQL then keeps one plan. One that was made when the tables were
        # small scans the whole table, until the server next analyzes it: finishing a batch took five times as long.
        # See also `store.database.engine.Plans`.
        "plan_cache_mode": "force_custom_plan",
        "jit": "off",
        "TimeZone": "UTC",  # in which psycopg reads times: in another, the first or the last is none of Python's
        tenant_setting: tenant,
        "idle_in_transaction_session_timeout": f"{max(100, round(lease_seconds * 1000 / 3))}ms",
        "lock_timeout": f"{max(CAREFUL_LOCK_MS, round(lease_seconds * 1000 / 30))}ms",
        # Where the host of a client is gone: the server's side of `store.database.engine.NOTICED`.
        "tcp_keepalives_idle": "10",
        "tcp_keepalives_interval": "5",
        "tcp_keepalives_count": "3",
        "tcp_user_timeout": f"{round(lease_seconds * 1000 / 2)}ms",
    }


def keep(engine: Engine, wanted: Mapping[str, str], options: str) -> None:
    """Have the sessions of an engine keep these settings.

    Args:
        options: of the URL, which stand above them.
    """
    given = {name.lower() for name in _OPTION.findall(options)}
    ours = {name: value for name, value in wanted.items() if name.lower() not in given}

    def prepare(connection: Any, record: Any) -> None:
        connection.autocommit = True
        if is_pooled(connection):
            record.info[_POOLED] = "BEGIN; " + statements("SET LOCAL", ours)
            return
        connection.execute(statements("SET", ours), prepare=False)
        connection.autocommit = False
        connection.prepare_threshold = PREPARE_AFTER

    event.listen(engine, "connect", prepare)
    event.listen(engine, "begin", _begin)


def adopt(connection: Connection, wanted: Mapping[str, str]) -> None:
    """Have a connection, of any engine, keep these settings until it is closed. It is in no transaction."""
    driver: Any = connection.connection.dbapi_connection
    driver.autocommit = True
    if not is_pooled(driver):
        driver.execute(statements("SET", wanted), prepare=False)
        driver.autocommit = False
        return
    driver.prepare_threshold = None
    if _POOLED not in connection.info:
        event.listen(connection, "begin", _begin)
    connection.info[_POOLED] = "BEGIN; " + statements("SET LOCAL", wanted)


def is_pooled(connection: Any) -> bool:
    """Whether a pooler is between psycopg's connection and the server."""
    [serving] = connection.execute("SELECT pg_backend_pid()").fetchone()
    return bool(serving != connection.info.backend_pid)


def shares_session(connection: Connection) -> bool:
    """Whether a session is ours for one transaction only."""
    return _POOLED in connection.info


def _begin(connection: Connection) -> None:
    begin = connection.info.get(_POOLED)
    if begin is not None and connection.get_execution_options().get("isolation_level") != "AUTOCOMMIT":
        driver: Any = connection.connection.dbapi_connection
        driver.autocommit = True  # psycopg would send a BEGIN before ours; Alembic turns it off
        connection.exec_driver_sql(begin)


def wait_for_no_lock(connection: Connection) -> None:
    """Until the transaction ends, give up at once where a lock is held. Nothing on SQLite."""
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = {CAREFUL_LOCK_MS}")


def statements(how: str, wanted: Mapping[str, str]) -> str:
    """The statements that set these: `SET` for a session, `SET LOCAL` for a transaction."""
    return "; ".join(f"{how} {name} = '{value}'" for name, value in wanted.items())

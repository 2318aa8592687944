"""The settings and time limits of our PostgreSQL sessions.

A direct connection gets the settings once, when it opens. A pooler gives the session to others between two
transactions; then each transaction sets them with its BEGIN, without another round trip, and no statements are
prepared. A pooler is detected by the backend's process id: it reports another one than the server.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy import Connection, Engine, event

PREPARE_AFTER: Final = 5
"""psycopg prepares a statement after it was run so often."""

CAREFUL_LOCK_MS: Final = 50
"""How long an item waits for a lock, in milliseconds, after its batch has waited for one."""

_POOLED: Final = "dspex_begin"
"""The key, in a connection's info, of the statements that begin a transaction behind a pooler."""

_OPTION: Final = re.compile(r"(?:-c\s*|--)([\w.]+)\s*=")


def settings(tenant_setting: str, tenant: str, lease_seconds: float) -> dict[str, str]:
    """The settings of a session. Its waits and locks end well within a lease.

    A worker that freezes in a transaction holds locks. The server ends its session after a third of a lease, so that
    others can continue. https://www.postgresql.org/docs/current/runtime-config-client.html
    """
    return {
        # psycopg prepares statements that run often, and PostgreSQL then caches a generic plan. A plan from when the
        # tables were small scans the whole table until the server next analyzes it; ending a batch then took five times
        # as long. See also `store.database.engine.Plans`.
        "plan_cache_mode": "force_custom_plan",
        "jit": "off",
        "TimeZone": "UTC",  # psycopg reads times in it; in others, the first or last are out of range
        tenant_setting: tenant,
        "idle_in_transaction_session_timeout": f"{max(100, round(lease_seconds * 1000 / 3))}ms",
        "lock_timeout": f"{max(CAREFUL_LOCK_MS, round(lease_seconds * 1000 / 30))}ms",
        # For a client whose host is gone: the server's counterpart of `store.database.engine._NOTICED`.
        "tcp_keepalives_idle": "10",
        "tcp_keepalives_interval": "5",
        "tcp_keepalives_count": "3",
        "tcp_user_timeout": f"{round(lease_seconds * 1000 / 2)}ms",
    }


def keep(engine: Engine, wanted: Mapping[str, str], options: str) -> None:
    """Give all sessions of an engine these settings.

    Args:
        options: the options in the URL, which take precedence.
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
    """Give a connection these settings until it is closed. It must not be in a transaction."""
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
    """Whether the session is shared with others between transactions, by a pooler."""
    return _POOLED in connection.info


def _begin(connection: Connection) -> None:
    begin = connection.info.get(_POOLED)
    if begin is not None and connection.get_execution_options().get("isolation_level") != "AUTOCOMMIT":
        driver: Any = connection.connection.dbapi_connection
        driver.autocommit = True  # otherwise psycopg sends another BEGIN; set again here because Alembic resets it
        connection.exec_driver_sql(begin)


def wait_for_no_lock(connection: Connection) -> None:
    """Until the transaction ends, hardly wait for locks (`CAREFUL_LOCK_MS`). Does nothing on SQLite."""
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = {CAREFUL_LOCK_MS}")


def statements(how: str, wanted: Mapping[str, str]) -> str:
    """The statements for these settings: `SET` for a session, `SET LOCAL` for a transaction."""
    return "; ".join(f"{how} {name} = '{value}'" for name, value in wanted.items())

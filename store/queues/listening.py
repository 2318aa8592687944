"""Hears of queues that have become ready, by PostgreSQL's notifications. They are hints: who listens also looks."""

from __future__ import annotations

from typing import Any

import psycopg
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from dspex.errors import DatabaseUnavailable
from store.database.failures import describe
from store.database.sessions import shares_session
from store.queues.offers import CHANNEL


class Listening:
    """A session that hears the notifications. For one thread."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._driver: psycopg.Connection[Any] = connection.connection.dbapi_connection
        self._socket: int = self._driver.fileno()  # a session that has ended does not say it any more

    def fileno(self) -> int:
        """The socket to wait at, until it can be read."""
        return self._socket

    def heard(self) -> bool:
        """Whether there have been notifications since the last call. Does not wait.

        Raises:
            DatabaseUnavailable: the session has ended.
        """
        heard = False
        try:
            self._driver.pgconn.consume_input()
            while self._driver.pgconn.notifies() is not None:
                heard = True
        except psycopg.Error as error:
            raise DatabaseUnavailable(str(error).partition("\n")[0]) from None
        return heard

    def close(self) -> None:
        """End the session."""
        # Not as a connection goes back to a pool, which would use the session once more: it may have ended.
        self._connection.invalidate()
        self._driver.close()


def listen(engine: Engine) -> Listening | None:
    """Begin to listen. None: the database has no notifications, or a pooler gives the session to others.

    Raises:
        DatabaseUnavailable: the database cannot be reached.
    """
    if engine.dialect.name != "postgresql":
        return None
    try:
        connection = engine.connect()
        try:
            if shares_session(connection):
                connection.close()
                return None
            connection.detach()  # it takes no place of the pool
            driver: Any = connection.connection.dbapi_connection
            driver.autocommit = True
            driver.execute(f"LISTEN {CHANNEL}")
        except BaseException:
            connection.close()
            raise
    except (DBAPIError, psycopg.Error) as error:
        reason = describe(error) if isinstance(error, DBAPIError) else str(error).partition("\n")[0]
        raise DatabaseUnavailable(reason) from None
    return Listening(connection)

"""Reads the database for one tenant, without waiting for writers."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from dspex.errors import DatabaseUnavailable
from store.database.engine import READ_ONLY
from store.database.failures import describe, passing
from store.database.tenancy import scope


@contextmanager
def read(engine: Engine, tenant: str) -> Generator[Connection]:
    """Open a connection that only reads, and sees one tenant.

    Raises:
        DatabaseUnavailable: the database cannot be read now. Raised here, or by use of the connection.
    """
    try:
        with engine.connect().execution_options(**READ_ONLY) as connection:
            scope(connection, tenant)
            yield connection
    except SQLAlchemyError as error:
        if not passing(error):
            raise
        raise DatabaseUnavailable(f"the database cannot be read: {describe(error)}") from None

"""Reads the database for a run."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from workers.persistence.reading import read
from workers.persistence.schema import unreachable


@contextmanager
def reading(engine: Engine, tenant: str) -> Generator[Connection]:
    """Open a connection that only reads, and sees one tenant.

    Raises:
        SettingsError: the database does not answer.
    """
    try:
        with read(engine, tenant) as connection:
            yield connection
    except DBAPIError as error:
        raise unreachable(engine, error) from None

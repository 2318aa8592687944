"""Reading the database of a run."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from workers.application import Application
from workers.schema import unreachable


@contextmanager
def reading(app: Application, tenant: str) -> Generator[Connection]:
    """A connection that only reads, and sees one tenant.

    Raises:
        SettingsError: the database does not answer.
    """
    try:
        with app.read(tenant) as connection:
            yield connection
    except DBAPIError as error:
        raise unreachable(app.engine, error) from None

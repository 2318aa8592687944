"""Whether the database is there, and has the tables that this version needs."""

from __future__ import annotations

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

import migrations
from dspex.errors import SettingsError
from store.failures import describe


def require_schema(engine: Engine) -> None:
    """Check the database; an embedded one (SQLite) is made or brought up to date.

    Raises:
        SettingsError: it cannot be reached, or `dspex migrate` is due.
    """
    try:
        if engine.dialect.name == "sqlite":
            migrations.upgrade(engine)
        elif not migrations.serves(engine):
            raise SettingsError("the database does not have this version's tables: run `dspex migrate`")
    except DBAPIError as error:
        raise unreachable(engine, error) from None


def unreachable(engine: Engine, error: DBAPIError) -> SettingsError:
    """The error for a database that does not answer."""
    where = engine.url.render_as_string(hide_password=True)
    return SettingsError(f"DSPEX_DATABASE_URL: {where}: {describe(error)}")
